"""/v1/models as the SDK reads it (E.7)."""

from __future__ import annotations

import openai
import pytest
from openai import OpenAI

from shapes import CHAT, EMBEDDING, typed


def test_the_list_has_the_models_that_the_key_may_use(client: OpenAI) -> None:
    models = {model.id: typed(model) for model in client.models.list()}
    assert {CHAT, EMBEDDING} <= set(models)
    assert all(model.object == "model" for model in models.values())


def test_one_model(client: OpenAI) -> None:
    model = typed(client.models.retrieve(CHAT))
    assert (model.id, model.owned_by) == (CHAT, "nemo")
    assert model._request_id, "also answers that no upstream has seen have an id"


def test_a_model_that_is_not_there(client: OpenAI) -> None:
    """R001-3."""
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-0")
    assert refused.value.code == "model_not_found" and refused.value.request_id
