"""Checks and requests that several test files share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from openai.types.chat import ChatCompletionChunk, ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from pydantic import BaseModel

CHAT = "demo-chat"
EMBEDDING = "demo-embedding"

WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["place", "unit"],
        },
    },
}

M = TypeVar("M", bound=BaseModel)


def typed(answer: M) -> M:
    """`answer`, with its types enforced: the SDK builds its objects without looking at what is in them."""
    type(answer).model_validate(answer.to_dict())  # type: ignore[attr-defined]
    return answer


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def text_of(chunks: Sequence[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def usage_of(answer: Any) -> tuple[int, int, int]:
    usage = answer.usage
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
