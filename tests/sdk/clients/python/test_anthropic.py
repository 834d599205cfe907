"""The official Anthropic SDK, whatever the upstream speaks."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from conftest import SENTENCE
from gateway import Gateway
from shapes import PLACE, png_base64

TOOL: Any = {"name": "get_weather", "description": "Weather", "input_schema": PLACE}


@pytest.fixture
def client(gateway: Gateway, root: str) -> Anthropic:
    return Anthropic(base_url=root, api_key=gateway.api_key, max_retries=0)


def test_messages(client: Anthropic, model: str) -> None:
    answer = client.messages.create(
        model=model, max_tokens=200, system="Be brief.", stop_sequences=["END"],
        messages=[{"role": "user", "content": "Hello!"}], extra_body={"temperature": 0.5},
    )  # fmt: skip
    type(answer).model_validate(answer.to_dict())
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    block: Any = answer.content[0]
    assert block.type == "text" and block.text == SENTENCE
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


def test_stream(client: Anthropic, model: str) -> None:
    kinds = []
    with client.messages.stream(
        model=model, max_tokens=200, messages=[{"role": "user", "content": "Hello!"}]
    ) as stream:
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and kinds.count("message_start") == 1
    assert final.content[0].text == SENTENCE and final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_full_tool_loop(client: Anthropic, model: str, streamed: bool) -> None:
    messages: Any = [{"role": "user", "content": "Weather in Paris?"}]
    ask: Any = {"model": model, "max_tokens": 200, "tools": [TOOL], "messages": messages}
    if streamed:
        with client.messages.stream(**ask) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**ask)
    assert answer.stop_reason == "tool_use"
    call: Any = next(block for block in answer.content if block.type == "tool_use")
    assert call.name == "get_weather" and set(call.input) == {"place", "unit"}
    messages += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}]},
    ]
    answer = client.messages.create(**ask)
    block: Any = answer.content[0]
    assert block.text == SENTENCE and answer.stop_reason == "end_turn"


def test_an_image(client: Anthropic, model: str) -> None:
    source: Any = {"type": "base64", "media_type": "image/png", "data": png_base64()}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    answer = client.messages.create(
        model=model, max_tokens=100, messages=[{"role": "user", "content": content}]
    )
    block: Any = answer.content[0]
    assert block.text == SENTENCE


def test_tokens_are_counted_or_estimated(client: Anthropic, model: str) -> None:
    counted = client.messages.with_raw_response.count_tokens(
        model=model, system="Be brief.", messages=[{"role": "user", "content": "Hello!"}]
    )
    assert counted.parse().input_tokens > 0
    # Services that are compatible with OpenAI don't count, so that the gateway estimates.
    estimated = "input_tokens" if model == "via-openai" else None
    assert counted.headers.get("x-nemo-estimated") == estimated
    with pytest.raises(anthropic.BadRequestError):
        client.messages.count_tokens(model=model, messages=[])


def test_errors_are_anthropics(client: Anthropic, gateway: Gateway, root: str) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        client.messages.create(model="nobody-has-it", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    body: Any = refused.value.body
    assert body["type"] == "error" and body["error"]["type"] == "not_found_error"
    stranger = Anthropic(base_url=root, api_key="sk-nemo-wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="via-openai", max_tokens=5, messages=[{"role": "user", "content": "x"}])


def test_models_are_listed_in_anthropics_shape(client: Anthropic) -> None:
    listed = client.models.list(limit=1000)
    assert {"via-anthropic", "via-gemini"} <= {model.id for model in listed}
    assert all(model.type == "model" for model in listed.data)
