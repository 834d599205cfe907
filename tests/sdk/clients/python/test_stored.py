"""What a provider keeps, asked for by its id with the official OpenAI SDK: films and responses."""

from __future__ import annotations

import openai
import pytest
from openai import OpenAI

from conftest import RESPONSES, VIDEOS
from gateway import Gateway

# The SDK tells that OpenAI's own films come to an end.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def client(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=gateway.api_key, max_retries=0)


@pytest.mark.parametrize("model", sorted(VIDEOS))
def test_a_film_is_made_and_downloaded(client: OpenAI, model: str) -> None:
    video = client.videos.create_and_poll(
        model=model, prompt="A cat.", seconds="8", size="1280x720", poll_interval_ms=20
    )
    type(video).model_validate(video.to_dict() | {"model": "sora-2"})
    assert video.status == "completed" and video.progress == 100 and video.error is None
    assert (video.seconds, video.size) == ("8", "1280x720")
    assert client.videos.retrieve(video.id).id == video.id
    film = client.videos.download_content(video.id).read()
    assert film.startswith(b"film ") and len(film) == 5000
    if model == "video-openai":
        assert client.videos.download_content(video.id, variant="thumbnail").read() == film
        assert client.videos.delete(video.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video.id)
    else:
        with pytest.raises(openai.BadRequestError, match="can't be deleted"):
            client.videos.delete(video.id)
    with pytest.raises(openai.NotFoundError, match="would not be paid for"):
        client.videos.remix(video.id, prompt="A dog.")


def test_a_response_is_retrieved_cancelled_and_deleted(client: OpenAI) -> None:
    [model] = RESPONSES
    made = client.responses.create(model=model, input="Hello!", background=True)
    found = client.responses.retrieve(made.id)
    type(found).model_validate(found.to_dict())
    assert found.id == made.id and found.output_text == made.output_text
    with client.responses.retrieve(made.id, stream=True) as stream:
        events = list(stream)
    assert events[-1].type == "response.completed" and events[-1].response.id == made.id
    items = client.responses.input_items.list(made.id, limit=5)
    assert [item.type for item in items.data] == ["message"] and items.data[0].id.startswith("msg_nemo.")
    again = client.responses.create(model=model, input="And then?", previous_response_id=made.id)
    assert again.previous_response_id == made.id
    assert client.responses.cancel(made.id).status == "cancelled"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match=made.id):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError, match="for this API key"):
        client.responses.retrieve("resp_1")
