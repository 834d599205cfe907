"""The official OpenAI SDK, whatever the upstream speaks."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from conftest import EMBEDDINGS, SENTENCE
from gateway import Gateway
from shapes import PLACE, City, png_base64

TOOL: Any = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": PLACE}}


@pytest.fixture
def client(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=gateway.api_key)


def test_chat(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, max_tokens=200, temperature=0.5, top_p=0.9, stop=["END"],
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
    )  # fmt: skip
    type(answer).model_validate(answer.to_dict())
    assert answer.object == "chat.completion" and answer.model
    assert answer.choices[0].message.content == SENTENCE and answer.choices[0].finish_reason == "stop"
    assert answer.usage and answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream(client: OpenAI, model: str) -> None:
    with client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hello!"}], stream=True,
        stream_options={"include_usage": True},
    ) as stream:  # fmt: skip
        chunks = list(stream)
    for chunk in chunks:
        type(chunk).model_validate(chunk.to_dict())
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == SENTENCE
    roles = [chunk.choices[0].delta.role for chunk in chunks if chunk.choices and chunk.choices[0].delta.role]
    assert roles == ["assistant"]
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage and chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_full_tool_loop(client: OpenAI, model: str, streamed: bool) -> None:
    messages: Any = [{"role": "user", "content": "Weather in Paris?"}]
    if streamed:
        with client.chat.completions.stream(model=model, messages=messages, tools=[TOOL]) as stream:
            for _ in stream:
                pass
            choice: Any = stream.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(model=model, messages=messages, tools=[TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1
    call = choice.message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"place", "unit"}
    # As naive clients do: only what every client knows goes back.
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [{
            "id": call.id, "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }]},
        {"role": "tool", "tool_call_id": call.id, "content": '{"celsius": 21}'},
    ]  # fmt: skip
    answer = client.chat.completions.create(model=model, messages=messages, tools=[TOOL])
    assert answer.choices[0].message.content == SENTENCE and answer.choices[0].finish_reason == "stop"


def test_structured_output(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "A city"}], response_format=City
    )
    assert isinstance(answer.choices[0].message.parsed, City), answer
    assert answer.choices[0].finish_reason == "stop" and not answer.choices[0].message.tool_calls


def test_an_image(client: OpenAI, model: str) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png_base64()}", "detail": "low"}},
    ]
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == SENTENCE


def test_a_malformed_image_is_named(client: OpenAI, model: str) -> None:
    if model == "via-openai":
        pytest.skip("what passes as it came is the upstream's to judge")
    parts: Any = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,***"}}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    assert "messages[0].content[0].image_url" in f"{refused.value.param} {refused.value.message}"


def test_responses(client: OpenAI, model: str) -> None:
    if model == "via-openai":
        pytest.skip("its model lists chat alone")
    answer = client.responses.create(model=model, input="Hello!", instructions="Be brief.")
    assert answer.output_text == SENTENCE and answer.status == "completed"
    assert answer.usage and answer.usage.output_tokens > 0
    kinds = []
    with client.responses.create(model=model, input="Hello!", stream=True) as stream:
        for event in stream:
            kinds.append(event.type)
            last: Any = event
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert last.response.output_text == SENTENCE


def test_completions(client: OpenAI, model: str) -> None:
    if model == "via-openai":
        pytest.skip("its model lists chat alone")
    answer = client.completions.create(model=model, prompt="Once", max_tokens=100)
    assert answer.object == "text_completion" and answer.choices[0].text == SENTENCE


@pytest.mark.parametrize("model", sorted(EMBEDDINGS))
def test_embeddings(client: OpenAI, model: str) -> None:
    answer = client.embeddings.create(model=model, input=["one", "two"])
    assert [entry.index for entry in answer.data] == [0, 1]
    assert all(isinstance(value, float) for entry in answer.data for value in entry.embedding)
