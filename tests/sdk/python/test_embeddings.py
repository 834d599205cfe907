"""/v1/embeddings: the SDK asks for base64 unless told otherwise, and decodes it (R004-26)."""

from __future__ import annotations

import math

import pytest
from openai import OpenAI

from gateway import Gateway
from shapes import EMBEDDING, typed


def test_base64_is_the_default_and_decoded_by_the_sdk(client: OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model=EMBEDDING, input="the blue whale")
    on_the_wire = raw.http_response.json()["data"][0]["embedding"]
    assert isinstance(on_the_wire, str), "the SDK asked for base64 and got something else"
    answer = typed(raw.parse())
    vector = answer.data[0].embedding
    assert len(vector) == 256 and math.isclose(sum(v * v for v in vector), 1, rel_tol=1e-3)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_floats_are_the_same_vector(client: OpenAI) -> None:
    decoded = client.embeddings.create(model=EMBEDDING, input="the blue whale").data[0].embedding
    plain = client.embeddings.create(model=EMBEDDING, input="the blue whale", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(decoded, abs=1e-6)


def test_many_inputs_keep_their_order(client: OpenAI) -> None:
    texts = [f"text number {at}" for at in range(50)]
    answer = typed(client.embeddings.create(model=EMBEDDING, input=texts, dimensions=16))
    assert [item.index for item in answer.data] == list(range(50))
    assert all(len(item.embedding) == 16 for item in answer.data)
    last = client.embeddings.create(model=EMBEDDING, input=texts[-1], dimensions=16)
    assert answer.data[-1].embedding == last.data[0].embedding


def test_tokens_as_input(client: OpenAI) -> None:
    answer = typed(client.embeddings.create(model=EMBEDDING, input=[[1, 2, 3], [4, 5]]))
    assert len(answer.data) == 2 and answer.usage.prompt_tokens == 5


def test_a_request_leaves_its_row(client: OpenAI, gateway: Gateway) -> None:
    answer = client.embeddings.create(model=EMBEDDING, input="row")
    row = gateway.row(answer._request_id)
    assert (row["endpoint"], row["model"], row["outcome"]) == ("embeddings", EMBEDDING, "ok")
    assert row["input_tokens"] == answer.usage.prompt_tokens and row["usage_estimated"] is False
