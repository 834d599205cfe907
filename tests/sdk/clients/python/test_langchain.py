"""LangChain's classes for OpenAI and Anthropic, whatever the upstream speaks."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from conftest import EMBEDDINGS, SENTENCE
from gateway import Gateway
from shapes import City, png_base64


@tool
def weather(place: str, unit: str) -> str:
    """Weather at a place."""
    return "21 degrees"


@pytest.fixture(params=["openai", "anthropic"])
def chat(request: pytest.FixtureRequest, gateway: Gateway, root: str, model: str) -> Any:
    if request.param == "openai":
        return ChatOpenAI(model=model, base_url=gateway.base_url, api_key=gateway.api_key)
    return ChatAnthropic(model_name=model, base_url=root, api_key=gateway.api_key, max_tokens_to_sample=300)


def test_chat(chat: Any) -> None:
    answer = chat.invoke([("system", "Be brief."), ("human", "Hello!")])
    assert answer.text == SENTENCE and answer.usage_metadata["output_tokens"] > 0


def test_stream(chat: Any) -> None:
    assert "".join(chunk.text for chunk in chat.stream("Hello!")) == SENTENCE


def test_a_full_tool_loop(chat: Any) -> None:
    bound = chat.bind_tools([weather])
    messages: list[Any] = [HumanMessage("Weather in Paris?")]
    answer = bound.invoke(messages)
    assert [call["name"] for call in answer.tool_calls] == ["weather"]
    call = answer.tool_calls[0]
    messages += [answer, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert bound.invoke(messages).text == SENTENCE


def test_structured_output(chat: Any) -> None:
    assert isinstance(chat.with_structured_output(City).invoke("A city"), City)


def test_an_image(chat: Any) -> None:
    image = {"type": "image", "base64": png_base64(), "mime_type": "image/png"}
    content: Any = [{"type": "text", "text": "What is this?"}, image]
    assert chat.invoke([HumanMessage(content)]).text == SENTENCE


@pytest.mark.parametrize("model", sorted(EMBEDDINGS))
def test_embeddings(gateway: Gateway, model: str) -> None:
    embeddings = OpenAIEmbeddings(
        model=model, base_url=gateway.base_url, api_key=gateway.api_key, check_embedding_ctx_length=False
    )
    vectors = embeddings.embed_documents(["one", "two"])
    assert len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 0
