"""LlamaIndex's classes for OpenAI-compatible services, whatever the upstream speaks."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

from conftest import EMBEDDINGS, SENTENCE
from gateway import Gateway
from shapes import City, png


def weather(place: str, unit: str) -> str:
    """Weather at a place."""
    return "21 degrees"


@pytest.fixture
def llm(gateway: Gateway, model: str) -> OpenAILike:
    return OpenAILike(
        model=model, api_base=gateway.base_url, api_key=gateway.api_key, is_chat_model=True,
        is_function_calling_model=True, context_window=128_000,
    )  # fmt: skip


def test_chat(llm: OpenAILike) -> None:
    messages = [ChatMessage(role=MessageRole.SYSTEM, content="Be brief."), ChatMessage(content="Hello!")]
    assert llm.chat(messages).message.content == SENTENCE


def test_stream(llm: OpenAILike) -> None:
    pieces = [chunk.delta or "" for chunk in llm.stream_chat([ChatMessage(content="Hello!")])]
    assert "".join(pieces) == SENTENCE


def test_a_full_tool_loop(llm: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(fn=weather)
    answer: Any = llm.predict_and_call([tool], user_msg="Weather in Paris?")
    assert "21 degrees" in str(answer)


def test_structured_output(llm: OpenAILike) -> None:
    structured = llm.as_structured_llm(City)
    assert isinstance(structured.chat([ChatMessage(content="A city")]).raw, City)


def test_an_image(llm: OpenAILike) -> None:
    blocks: Any = [TextBlock(text="What is this?"), ImageBlock(image=png(), image_mimetype="image/png")]
    assert llm.chat([ChatMessage(blocks=blocks)]).message.content == SENTENCE


@pytest.mark.parametrize("model", sorted(EMBEDDINGS))
def test_embeddings(gateway: Gateway, model: str) -> None:
    embedding = OpenAILikeEmbedding(model_name=model, api_base=gateway.base_url, api_key=gateway.api_key)
    assert len(embedding.get_text_embedding("one")) > 0
