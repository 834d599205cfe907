"""Complete answers of /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from gateway import Gateway
from shapes import CHAT, WEATHER, says, text_of, typed, usage_of


def test_an_answer_has_the_types_that_the_sdk_declares(client: OpenAI) -> None:
    """R000-1, R000-4."""
    answer = client.chat.completions.create(
        model=CHAT, messages=says("Hello!"), temperature=1, max_tokens=1024, top_p=1
    )
    typed(answer)
    assert (answer.object, answer.model, len(answer.choices)) == ("chat.completion", CHAT, 1)
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert choice.message.content and "Hello!" in choice.message.content
    prompt, completion, total = usage_of(answer)
    assert prompt > 0 and completion > 0 and total == prompt + completion


def test_the_same_request_gets_the_same_answer(client: OpenAI) -> None:
    first, second = (
        client.chat.completions.create(model=CHAT, messages=says("again"), seed=1) for _ in range(2)
    )
    assert first.choices == second.choices and first._request_id != second._request_id


def test_headers_say_who_answered_and_what_it_cost(client: OpenAI) -> None:
    """R001-5, F; E.1: x-request-id is what the SDK shows as _request_id."""
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=says("hi"))
    answer, headers = raw.parse(), raw.headers
    assert raw.status_code == 200 and headers["content-type"] == "application/json"
    assert answer._request_id == raw.request_id == headers["x-request-id"]
    expected = {"x-nemo-provider": "demo", "x-nemo-model": CHAT, "x-nemo-attempts": "1"}
    assert {name: headers.get(name) for name in expected} == expected
    assert headers["x-nemo-strategy"] == "simple-shuffle"
    assert Decimal(headers["x-nemo-cost-usd"]) == 0 and headers["x-nemo-cost-source"] == "priced"
    assert float(headers["x-nemo-overhead-ms"]) >= 0 and int(headers["x-nemo-config-version"]) > 0


def test_a_request_id_of_the_caller_comes_back(client: OpenAI) -> None:
    """E.2."""
    headers = {"x-request-id": "caller-7"}
    answer = client.chat.completions.create(model=CHAT, messages=says("hi"), extra_headers=headers)
    assert answer._request_id == "caller-7"


def test_a_limit_on_tokens_ends_with_length(client: OpenAI) -> None:
    """E.3: both names of the limit."""
    limit: Any
    for limit in ({"max_tokens": 3}, {"max_completion_tokens": 3}):
        answer = client.chat.completions.create(model=CHAT, messages=says("a b c d e f"), **limit)
        assert typed(answer).choices[0].finish_reason == "length"
        assert usage_of(answer)[1] == 3


def test_several_choices(client: OpenAI) -> None:
    answer = typed(client.chat.completions.create(model=CHAT, messages=says("hi"), n=3))
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_content_in_parts(client: OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}]
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    content = client.chat.completions.create(model=CHAT, messages=messages).choices[0].message.content
    assert content and "first second" in content


def test_a_tool_is_called_and_its_result_used(client: OpenAI) -> None:
    """R003-6, R004-27."""
    messages: Any = says("Weather in Oslo?")
    answer = typed(client.chat.completions.create(model=CHAT, messages=messages, tools=[WEATHER]))
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.id
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"place", "unit"}

    messages += [
        choice.message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "4 degrees, rain"},
    ]
    final = typed(client.chat.completions.create(model=CHAT, messages=messages, tools=[WEATHER]))
    assert final.choices[0].finish_reason == "stop"
    assert "4 degrees, rain" in (final.choices[0].message.content or "")


def test_tool_choice_none_answers_with_text(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=says("hi"), tools=[WEATHER], tool_choice="none", parallel_tool_calls=False
    )
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content


def test_json_mode(client: OpenAI) -> None:
    """R004-27."""
    answer = client.chat.completions.create(
        model=CHAT, messages=says("hi"), response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


class Recipe(BaseModel):
    title: str
    minutes: int
    difficulty: Literal["easy", "hard"]
    steps: list[str]


def test_structured_output_is_parsed_into_the_callers_model(client: OpenAI) -> None:
    """R004-27: the SDK sends the JSON schema of the class and builds an object of it from the answer."""
    answer = client.chat.completions.parse(model=CHAT, messages=says("soup"), response_format=Recipe)
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Recipe) and parsed.difficulty in ("easy", "hard")


class GetStock(BaseModel):
    symbol: str
    exact: bool


def test_tool_arguments_are_parsed_into_the_callers_model(client: OpenAI) -> None:
    tools = [openai.pydantic_function_tool(GetStock)]
    answer = client.chat.completions.parse(model=CHAT, messages=says("price?"), tools=tools)
    calls = answer.choices[0].message.tool_calls
    assert calls and isinstance(calls[0].function.parsed_arguments, GetStock)


def test_extras_of_the_gateway_and_of_openrouter_are_accepted(client: OpenAI) -> None:
    """R000-5 (the field is accepted), R002-2, R002-12."""
    answer = client.chat.completions.create(
        model=CHAT,
        messages=says("hi"),
        extra_body={"nemo_cache": False, "nemo_metadata": {"run": "7"}},
        extra_headers={"HTTP-Referer": "https://app.example", "X-Title": "App"},
    )
    assert answer.choices[0].message.content


def test_the_alias_for_openrouter_clients(gateway: Gateway) -> None:
    """E.6: only host and key change."""
    base_url = gateway.base_url.removesuffix("/v1") + "/api/v1"
    with OpenAI(base_url=base_url, api_key=gateway.api_key) as client:
        answer = typed(client.chat.completions.create(model=CHAT, messages=says("hi")))
        assert answer.choices[0].message.content
        assert text_of(list(client.chat.completions.create(model=CHAT, messages=says("hi"), stream=True)))
        assert CHAT in [model.id for model in client.models.list()]
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(model="nobody", messages=says("hi"))
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["code"] == 404, "a number there"


def test_async_clients_and_many_requests_at_once(gateway: Gateway) -> None:
    """R000-1."""

    async def ask() -> list[str]:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.api_key) as client:
            asked = (
                client.chat.completions.create(model=CHAT, messages=says(f"number {at}.")) for at in range(32)
            )
            answers = await asyncio.gather(*asked)
        return [typed(answer).choices[0].message.content or "" for answer in answers]

    for at, content in enumerate(asyncio.run(ask())):
        assert content.endswith(f"number {at}."), content


def test_legacy_completions(client: OpenAI) -> None:
    answer = typed(client.completions.create(model=CHAT, prompt="Once upon a time", max_tokens=50))
    assert answer.object == "text_completion" and answer.choices[0].text
    assert answer.usage and answer.usage.completion_tokens > 0
    # No types enforced: the SDK declares a finish reason for each chunk, the API has it in the last.
    chunks = list(
        client.completions.create(model=CHAT, prompt="Once upon a time", max_tokens=50, stream=True)
    )
    assert len(chunks) > 2
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
