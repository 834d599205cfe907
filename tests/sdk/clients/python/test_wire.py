"""What the gateway sends upstream, against the types that the providers themselves publish: every golden expectation of a
request, as `anthropic`, `google-genai` and `botocore` declare it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from anthropic.types import (
    ContentBlockParam,
    MessageParam,
    TextBlockParam,
    ToolUnionParam,
    message_create_params,
)
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from botocore.validate import ParamValidator
from google.genai import types
from pydantic import TypeAdapter, ValidationError

GOLDEN = Path(__file__).resolve().parents[4] / "data-plane/llm/tests/golden/transcode/request"


def bodies(dialect: str) -> Iterator[Any]:
    for path in sorted(GOLDEN.glob(f"*/*-to-{dialect}.json")):
        expected = json.loads(path.read_text())
        if "body" in expected:
            yield pytest.param(expected["body"], id=f"{path.parent.name}/{path.stem}")




def check_anthropic(body: dict[str, Any]) -> None:
    """Lists are declared as iterables, which pydantic does not look into: each entry is checked by itself."""

    def each(kind: Any, entries: Any) -> None:
        for entry in entries if isinstance(entries, list) else []:
            TypeAdapter(kind).validate_python(entry)
            if isinstance(entry.get("content"), list):
                each(ContentBlockParam, entry["content"])

    streams = body.get("stream")
    kind: Any = MessageCreateParamsStreaming if streams else MessageCreateParamsNonStreaming
    declared = set(kind.__annotations__) | set(message_create_params.MessageCreateParamsBase.__annotations__)
    assert set(body) <= declared, set(body) - declared
    TypeAdapter(kind).validate_python(body)
    each(MessageParam, body["messages"])
    each(TextBlockParam, body.get("system"))
    each(ToolUnionParam, body.get("tools"))


@pytest.mark.parametrize("body", list(bodies("messages")))
def test_anthropic_takes_it(body: dict[str, Any]) -> None:
    # Vertex has the model in the path; older models take what the newest SDK does not declare any more.
    beside = {"anthropic_version", "temperature", "top_p", "top_k"}
    check_anthropic({"model": "m"} | {name: value for name, value in body.items() if name not in beside})


@pytest.mark.parametrize("body", list(bodies("generate_content")))
def test_google_takes_it(body: dict[str, Any]) -> None:
    known: dict[str, Any] = {
        "contents": list[types.Content],
        "systemInstruction": types.Content,
        "tools": list[types.Tool],
        "toolConfig": types.ToolConfig,
        "generationConfig": types.GenerationConfig,
        "safetySettings": list[types.SafetySetting],
        "cachedContent": str,
        "labels": dict[str, str],
        "serviceTier": str,
    }
    for name, value in body.items():
        assert name in known, name
        TypeAdapter(known[name]).validate_python(value)


CONVERSE = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape


@pytest.mark.parametrize("body", list(bodies("converse")))
def test_bedrock_takes_it(body: dict[str, Any]) -> None:
    report = ParamValidator().validate({"modelId": "m", **body}, CONVERSE)
    assert not report.has_errors(), report.generate_report()
    # The validator lets members pass that it does not know.
    assert set(body) <= set(CONVERSE.members), set(body) - set(CONVERSE.members)


def test_the_types_refuse_what_is_wrong() -> None:
    """Or the tests above would prove nothing."""
    wrong: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": [{"role": "nobody", "content": "x"}]}
    with pytest.raises(ValidationError):
        check_anthropic(wrong)
    with pytest.raises(ValidationError):
        TypeAdapter(list[types.Content]).validate_python([{"parts": [{"texts": "x"}]}])
    assert ParamValidator().validate({"modelId": "m", "messages": [{"role": "user"}]}, CONVERSE).has_errors()
    assert sum(1 for dialect in ("messages", "generate_content", "converse") for _ in bodies(dialect)) > 50
