"""google-genai, whatever the upstream speaks."""

from __future__ import annotations

from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from conftest import SENTENCE
from gateway import Gateway
from shapes import City, png


@pytest.fixture
def client(gateway: Gateway, root: str) -> genai.Client:
    return genai.Client(api_key=gateway.api_key, http_options=types.HttpOptions(base_url=root))


def weather(place: str, unit: str) -> str:
    """Weather at a place."""
    return "21 degrees"


def test_content(client: genai.Client, model: str) -> None:
    config = types.GenerateContentConfig(
        system_instruction="Be brief.", temperature=0.5, max_output_tokens=200, stop_sequences=["END"]
    )
    answer = client.models.generate_content(model=model, contents="Hello!", config=config)
    assert answer.text == SENTENCE
    candidate: Any = (answer.candidates or [None])[0]
    assert candidate.finish_reason == types.FinishReason.STOP
    usage: Any = answer.usage_metadata
    assert usage.prompt_token_count > 0 and usage.candidates_token_count > 0


def test_tokens_are_counted_or_estimated(client: genai.Client, model: str) -> None:
    counted = client.models.count_tokens(model=model, contents="Hello!")
    assert (counted.total_tokens or 0) > 0
    with pytest.raises(errors.ClientError) as refused:
        client.models.count_tokens(model="nobody-has-it", contents="Hello!")
    assert refused.value.code == 404 and refused.value.status == "NOT_FOUND"


def test_stream(client: genai.Client, model: str) -> None:
    chunks = list(client.models.generate_content_stream(model=model, contents="Hello!"))
    assert "".join(chunk.text or "" for chunk in chunks) == SENTENCE
    last: Any = chunks[-1]
    assert last.usage_metadata.candidates_token_count > 0


def test_a_full_tool_loop(client: genai.Client, model: str) -> None:
    """The SDK calls the function itself and sends what came of it."""
    config = types.GenerateContentConfig(tools=[weather])
    answer = client.models.generate_content(model=model, contents="Weather in Paris?", config=config)
    assert answer.text == SENTENCE
    history: Any = answer.automatic_function_calling_history
    calls = [part.function_call for content in history for part in content.parts if part.function_call]
    # What the SDK makes of a function for Google requires no argument, so an upstream may give none.
    assert [call.name for call in calls] == ["weather"] and set(calls[0].args) <= {"place", "unit"}


def test_structured_output(client: genai.Client, model: str) -> None:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
    answer = client.models.generate_content(model=model, contents="A city", config=config)
    assert isinstance(answer.parsed, City)


def test_an_image(client: genai.Client, model: str) -> None:
    contents: Any = [types.Part.from_bytes(data=png(), mime_type="image/png"), "What is this?"]
    assert client.models.generate_content(model=model, contents=contents).text == SENTENCE


def test_errors_are_googles(client: genai.Client) -> None:
    with pytest.raises(errors.ClientError) as refused:
        client.models.generate_content(model="nobody-has-it", contents="x")
    assert (refused.value.code, refused.value.status) == (404, "NOT_FOUND")
