"""Images, sound, moderation and responses through the official SDK, streamed and not (R000-1, R003-8)."""

from __future__ import annotations

import io

import openai
import pytest
from openai import OpenAI

from gateway import Gateway
from shapes import CHAT, typed

IMAGE, SPEECH, TRANSCRIPTION, MODERATION = "demo-image", "demo-speech", "demo-transcription", "demo-moderation"


def units(row: dict) -> dict[str, int]:
    return {it["unit"]: it["quantity"] for it in row["units"]}


def recording(size: int) -> tuple[str, io.BytesIO, str]:
    return ("a.wav", io.BytesIO(bytes(size)), "audio/wav")


def test_images_are_made_and_counted(client: OpenAI, gateway: Gateway) -> None:
    answer = typed(client.images.generate(model=IMAGE, prompt="a whale", n=2, size="1024x1536"))
    assert answer.data and len(answer.data) == 2 and answer.data[0].b64_json
    assert answer.usage and answer.usage.output_tokens > 0
    row = gateway.row(answer._request_id)
    assert (row["endpoint"], units(row)["images"], row["cost_nanos"]) == ("images.generations", 2, 0)
    assert row["units"][0]["size"] == "1024x1536"


def test_images_are_streamed(client: OpenAI) -> None:
    stream = client.images.generate(model=IMAGE, prompt="a whale", stream=True, partial_images=1)
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert events[-1].usage.output_tokens > 0


def test_images_are_edited_and_varied(client: OpenAI, gateway: Gateway) -> None:
    pictures = [("a.png", b"\x89PNG" + bytes(40_000), "image/png"), ("b.png", b"\x89PNG", "image/png")]
    answer = typed(client.images.edit(model=IMAGE, image=pictures, prompt="a hat", quality="high"))
    assert answer.data and answer.data[0].b64_json
    row = gateway.row(answer._request_id)
    assert (row["endpoint"], row["units"][0]["quality"]) == ("images.edits", "high")
    events = list(client.images.edit(model=IMAGE, image=pictures[0], prompt="a hat", stream=True))
    assert events[-1].type == "image_edit.completed"
    with pytest.warns(DeprecationWarning):
        varied = client.images.create_variation(model=IMAGE, image=pictures[0], n=3)
    assert varied.data and len(varied.data) == 3


def test_speech_is_spoken_and_streamed(client: OpenAI, gateway: Gateway) -> None:
    whole = client.audio.speech.create(model=SPEECH, voice="alloy", input="one two three")
    assert whole.content.startswith(b"RIFF") and whole.response.headers["content-type"] == "audio/wav"
    row = gateway.row(whole.response.headers["x-request-id"])
    assert units(row) == {"characters": 13}
    with client.audio.speech.with_streaming_response.create(
        model=SPEECH, voice="alloy", input="one two three"
    ) as streamed:
        assert b"".join(streamed.iter_bytes()) == whole.content


def test_recordings_are_written_down(client: OpenAI, gateway: Gateway) -> None:
    answer = typed(client.audio.transcriptions.create(model=TRANSCRIPTION, file=recording(40_000)))
    assert "40000 bytes" in answer.text
    row = gateway.row(answer._request_id)
    assert (row["endpoint"], units(row)["audio_milliseconds"]) == ("audio.transcriptions", 3000)
    verbose = client.audio.transcriptions.create(
        model=TRANSCRIPTION, file=recording(16_000), response_format="verbose_json"
    )
    assert verbose.duration == 1
    subtitles = client.audio.transcriptions.create(
        model=TRANSCRIPTION, file=recording(16_000), response_format="srt"
    )
    assert "-->" in str(subtitles)
    with pytest.warns(DeprecationWarning):
        english = client.audio.translations.create(model=TRANSCRIPTION, file=recording(16_000))
    assert "16000 bytes" in english.text
    events = list(client.audio.transcriptions.create(model=TRANSCRIPTION, file=recording(16_000), stream=True))
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text


def test_a_recording_of_25_megabytes_passes(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(model=TRANSCRIPTION, file=recording(25_000_000))
    assert "25000000 bytes" in answer.text


def test_metadata_travels_in_a_form_and_stays_here(client: OpenAI, gateway: Gateway) -> None:
    answer = client.audio.transcriptions.create(
        model=TRANSCRIPTION, file=recording(10), extra_body={"nemo_metadata": '{"run": 7}'}
    )
    assert '"run": 7' in gateway.row(answer._request_id)["metadata"]


def test_texts_are_moderated(client: OpenAI, gateway: Gateway) -> None:
    answer = typed(client.moderations.create(model=MODERATION, input=["a whale", "attack the whale"]))
    assert [result.flagged for result in answer.results] == [False, True]
    assert answer.results[1].categories.violence
    assert units(gateway.row(answer._request_id)) == {"requests": 1}


def test_a_wrong_endpoint_names_the_right_ones(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="It serves audio.speech"):
        client.images.generate(model=SPEECH, prompt="a whale")
    with pytest.raises(openai.NotFoundError, match="for this API key"):
        client.responses.retrieve("resp_1")


def test_a_response_is_parsed_and_metered(client: OpenAI, gateway: Gateway) -> None:
    answer = typed(client.responses.create(model=CHAT, input="the blue whale"))
    assert answer.status == "completed" and "the blue whale" in answer.output_text
    row = gateway.row(answer._request_id)
    assert answer.usage and row["input_tokens"] == answer.usage.input_tokens
    assert (row["endpoint"], row["finish_reason"], row["units"]) == ("responses", "stop", [])
    short = client.responses.create(model=CHAT, input="the blue whale", max_output_tokens=3)
    assert short.incomplete_details and short.incomplete_details.reason == "max_output_tokens"


def test_a_response_is_streamed(client: OpenAI) -> None:
    with client.responses.stream(model=CHAT, input="the blue whale") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.type for event in events][0] == "response.created"
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == final.output_text and final.usage and final.usage.output_tokens > 0
    assert events[-1].type == "response.completed"
