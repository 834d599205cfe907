"""Streams of /v1/chat/completions: the chunks, their order, and what is on the wire (E.3)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from gateway import Gateway
from shapes import CHAT, WEATHER, says, text_of, typed, usage_of
from upstream import Upstream


def streamed(client: OpenAI, text: str, **settings: Any) -> list[ChatCompletionChunk]:
    stream = client.chat.completions.create(model=CHAT, messages=says(text), stream=True, **settings)
    return [typed(chunk) for chunk in stream]


def test_the_chunks_add_up_to_the_answer(client: OpenAI) -> None:
    """R000-1, R000-7."""
    chunks = streamed(client, "one two three")
    assert len(chunks) > 4
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    finishes = [chunk.choices[0].finish_reason for chunk in chunks]
    assert finishes == [None] * (len(chunks) - 1) + ["stop"]
    whole = client.chat.completions.create(model=CHAT, messages=says("one two three"))
    assert text_of(chunks) == whole.choices[0].message.content


def test_usage_comes_only_when_asked_for(client: OpenAI) -> None:
    """E.3: clients exist that fall over a chunk without choices."""
    quiet = streamed(client, "count")
    assert all(chunk.choices and chunk.usage is None for chunk in quiet)
    refused = streamed(client, "count", stream_options={"include_usage": False})
    assert all(chunk.choices and chunk.usage is None for chunk in refused)

    asked = streamed(client, "count", stream_options={"include_usage": True})
    *rest, last = asked
    assert all(chunk.choices and chunk.usage is None for chunk in rest)
    assert last.choices == [] and text_of(rest) == text_of(quiet)
    whole = client.chat.completions.create(model=CHAT, messages=says("count"))
    assert usage_of(last) == usage_of(whole)


def test_usage_is_metered_whether_or_not_it_was_asked_for(client: OpenAI, gateway: Gateway) -> None:
    """B1 `usage`: what the upstream was asked for and what the client gets are two things."""
    options: Any
    for options in ({}, {"stream_options": {"include_usage": True}}):
        stream = client.chat.completions.create(model=CHAT, messages=says("count"), stream=True, **options)
        request_id = stream.response.headers["x-request-id"]
        assert list(stream)
        row = gateway.row(request_id)
        assert (row["stream"], row["outcome"], row["usage_estimated"]) == (True, "ok", False)
        assert row["input_tokens"] > 0 and row["output_tokens"] > 0


def test_a_streamed_tool_call_adds_up(client: OpenAI) -> None:
    """E.3: id, type and name once, then fragments of the arguments."""
    chunks = streamed(client, "Weather in Oslo?", tools=[WEATHER])
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    first, *others = deltas
    assert others, "the arguments come in pieces"
    assert first.id and first.type == "function" and first.function and first.function.name == "get_weather"
    assert all(call.id is None and call.type is None for call in others)
    assert {call.index for call in deltas} == {0}
    arguments = "".join(call.function.arguments or "" for call in deltas if call.function)
    assert set(json.loads(arguments)) == {"place", "unit"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_sdks_own_accumulator_agrees(client: OpenAI) -> None:
    """The helper that raises events and builds the final completion from the chunks."""
    with client.chat.completions.stream(
        model=CHAT, messages=says("Weather?"), tools=[WEATHER], stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds
    whole = client.chat.completions.create(model=CHAT, messages=says("Weather?"), tools=[WEATHER])
    called, expected = final.choices[0].message.tool_calls, whole.choices[0].message.tool_calls
    assert called and expected and expected[0].type == "function"
    assert called[0].function.arguments == expected[0].function.arguments
    assert usage_of(final) == usage_of(whole)


def test_several_choices_interleave(client: OpenAI) -> None:
    chunks = streamed(client, "hi", n=2)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts[0] == texts[1] != ""


def test_a_stream_without_its_terminator_is_complete(
    client: OpenAI, upstream: Upstream, gateway: Gateway
) -> None:
    """C15: some providers send no `[DONE]`, but every choice has its finish reason."""
    stream = client.chat.completions.create(model="unterminated", messages=says("hi"), stream=True)
    chunks = list(stream)
    assert text_of(chunks) and chunks[-1].choices[0].finish_reason == "stop"
    assert gateway.row(stream.response.headers["x-request-id"])["outcome"] == "ok"


def test_async_streams(gateway: Gateway) -> None:
    async def ask() -> list[ChatCompletionChunk]:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.api_key) as client:
            stream = await client.chat.completions.create(model=CHAT, messages=says("async"), stream=True)
            return [typed(chunk) async for chunk in stream]

    assert text_of(asyncio.run(ask())).endswith("async")


def test_the_wire_is_plain_server_sent_events(client: OpenAI) -> None:
    """E.3: `data:` lines and nothing else, one empty line after each, `[DONE]` last."""
    with client.chat.completions.with_streaming_response.create(
        model=CHAT, messages=says("wire"), stream=True
    ) as response:
        assert response.headers["content-type"].split(";")[0] == "text/event-stream"
        assert "content-length" not in response.headers
        assert response.headers["x-nemo-provider"] == "demo" and response.headers["x-request-id"]
        events = b"".join(response.iter_bytes()).decode().split("\n\n")
    assert events.pop() == "" and events[-1] == "data: [DONE]"
    for event in events[:-1]:
        assert event.startswith("data: {") and "\n" not in event, event
        assert json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk"
