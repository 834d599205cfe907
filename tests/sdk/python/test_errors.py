"""Refusals and faults as exceptions of the SDK, and how often it tries again (E.1, B2, B3, B4, B7, B11)."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest
from openai import OpenAI

from gateway import Gateway
from processes import eventually
from shapes import CHAT, says, text_of
from upstream import API_KEY, Upstream, eventually_accepted


# The gateway's own retries would be counted with those of the SDK.
ONCE = {"x-nemo-retries": "0"}
# The demo costs nothing, and what costs nothing needs no money.
PRICED = "steady"


def ask(client: OpenAI, model: str, **settings: Any) -> Any:
    return client.chat.completions.create(model=model, messages=says("hi"), **settings)


def test_a_wrong_key_is_an_authentication_error(gateway: Gateway) -> None:
    for key in ("sk-nemo-0123456789abcdef0123456789abcdef", "sk-something-else"):
        with OpenAI(base_url=gateway.base_url, api_key=key) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                ask(client, CHAT)
            assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")
            assert refused.value.request_id and key not in str(refused.value)
            with pytest.raises(openai.AuthenticationError):
                client.models.list()


def test_a_disabled_key_is_refused(gateway: Gateway) -> None:
    key_id, secret = gateway.issue_key(name="to be disabled")
    with OpenAI(base_url=gateway.base_url, api_key=secret) as client:
        eventually_accepted(client)
        gateway.admin("PATCH", f"{gateway.org}/keys/{key_id}", {"disabled": True})
        with pytest.raises(openai.AuthenticationError):
            for _ in range(1000):
                ask(client, CHAT)


def test_a_key_for_other_models_is_a_permission_error(gateway: Gateway) -> None:
    _, secret = gateway.issue_key(allowed_models=["demo-embedding"])
    with OpenAI(base_url=gateway.base_url, api_key=secret) as client:
        eventually_accepted(client)
        assert [model.id for model in client.models.list()] == ["demo-embedding"]
        with pytest.raises(openai.PermissionDeniedError) as refused:
            ask(client, CHAT)
        assert refused.value.code == "permission_denied"


def test_an_unknown_model_is_not_found_and_the_nearest_is_named(client: OpenAI) -> None:
    """R001-3, B11."""
    with pytest.raises(openai.NotFoundError) as refused:
        ask(client, "demo-chut")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "demo-chat" in refused.value.message


def test_a_bad_request_names_the_parameter(client: OpenAI) -> None:
    bad: Any = "two"
    for settings, param in (
        ({"n": bad}, "n"),
        ({"max_tokens": bad}, "max_tokens"),
        ({"extra_body": {"messages": "hi"}}, "messages"),
        ({"extra_body": {"nemo_timeout_ms": 0}}, "nemo_timeout_ms"),
        ({"extra_headers": {"x-nemo-strategy": "fastest"}}, "x-nemo-strategy"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, CHAT, **settings)
        assert (refused.value.param, refused.value.type) == (param, "invalid_request_error"), settings
        assert isinstance(refused.value.code, str)


def test_a_path_that_is_not_served_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.files.list()
    assert refused.value.code == "not_found" and "/v1/files" in refused.value.message


def test_a_fault_of_the_upstream_is_a_502_that_the_sdk_does_not_retry(
    client: OpenAI, upstream: Upstream, gateway: Gateway
) -> None:
    """R004-11, B4: the SDK would try three times."""
    assert client.max_retries == 2
    before = upstream.calls()
    with pytest.raises(openai.InternalServerError) as failed:
        ask(client, "broken", extra_headers=ONCE)
    assert upstream.calls() - before == 2, "one call for the request, one for the count"
    error = failed.value
    assert (error.status_code, error.code) == (502, "fallback_chain_exhausted")
    headers = error.response.headers
    assert headers["x-should-retry"] == "false" and headers["x-nemo-chain"].startswith("custom/")
    assert isinstance(error.body, dict)
    attempt = error.body["metadata"]["attempts"][0]
    assert attempt["provider"] == "custom"
    row = gateway.row(error.request_id)
    assert (row["http_status"], row["outcome"], row["cost_nanos"]) == (502, "error", None)


def test_a_rate_limit_of_the_upstream_is_waited_for_as_it_says(client: OpenAI, upstream: Upstream) -> None:
    """B2, R004-16: the hint travels, and the SDK acts on it."""
    with pytest.raises(openai.RateLimitError) as failed:
        ask(client.with_options(max_retries=0), "limited")
    # The hint, or the cooldown that it has made: up to a fifth longer.
    assert failed.value.response.headers["retry-after"] in ("3", "4")
    assert failed.value.type == "rate_limit_error"
    started = time.monotonic()
    # Limited, or cooling down because it was.
    with pytest.raises((openai.RateLimitError, openai.InternalServerError)) as repeated:
        ask(client.with_options(max_retries=1), "limited")
    assert repeated.value.status_code in (429, 503)
    assert repeated.value.response.request.headers["x-stainless-retry-count"] == "1"
    # No hint is less than a second. Without one the SDK would wait for half of that, and the gateway does not.
    assert time.monotonic() - started >= 1


def test_a_refusal_of_the_upstream_passes_through(client: OpenAI, upstream: Upstream) -> None:
    """B3."""
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "refusing")
    assert "scripted status 400" in refused.value.message


def test_a_fault_of_the_gateways_credential_is_never_an_authentication_error(
    client: OpenAI, upstream: Upstream, gateway: Gateway
) -> None:
    """B3: the caller's key is fine."""
    with pytest.raises(openai.InternalServerError) as failed:
        ask(client, "distrustful")
    assert (failed.value.status_code, failed.value.code) == (502, "upstream_credential_rejected")
    assert API_KEY not in str(failed.value) and API_KEY not in gateway.log


@pytest.mark.parametrize("model", ["cut-off", "reset", "regretful"])
def test_a_stream_that_breaks_off_is_an_error_and_never_an_end(
    client: OpenAI, upstream: Upstream, gateway: Gateway, model: str
) -> None:
    """B7, C15: content came, then an exception; nothing is tried again."""
    before = upstream.calls()
    stream = ask(client, model, stream=True)
    chunks = []
    with pytest.raises(openai.APIError) as failed:
        for chunk in stream:
            chunks.append(chunk)
    assert text_of(chunks) and not any(choice.finish_reason for chunk in chunks for choice in chunk.choices)
    assert not isinstance(failed.value, openai.APIConnectionError), "an error event, not only a cut line"
    assert failed.value.message
    assert upstream.calls() - before == 2
    row = gateway.row(stream.response.headers["x-request-id"])
    assert (row["outcome"], row["http_status"]) == ("interrupted", 200)
    assert row["output_tokens"] > 0 and row["cost_source"] == "estimated"


def test_a_broken_stream_before_any_content_is_a_status(client: OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        ask(client, "broken", stream=True, extra_headers=ONCE)
    assert failed.value.status_code == 502


def test_a_deadline_of_the_request_is_kept(client: OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        ask(client, "sluggish", extra_body={"nemo_timeout_ms": 200})
    assert (failed.value.status_code, failed.value.code) == (504, "total_timeout")


def refused_with(client: OpenAI, status: int) -> openai.APIStatusError:
    """What the SDK raises once nodes know what there is to spend: until then they can't tell (503).

    Only to a first request: after a 503, which the SDK repeats, nobody could tell whether it repeats this status too.
    """

    def refused() -> openai.APIStatusError | None:
        try:
            ask(client, PRICED)
        except openai.APIStatusError as error:
            first = error.response.request.headers["x-stainless-retry-count"] == "0"
            return error if error.status_code == status and first else None
        return None

    return eventually(f"a status {status}", refused)


def test_no_credit_is_an_api_status_error_of_402_that_the_sdk_does_not_retry(
    gateway: Gateway, upstream: Upstream
) -> None:
    """B11: an organization that has to pay in advance and has not."""
    org = f"/organizations/{gateway.admin('POST', '/organizations', {'name': 'poor'})['id']}"
    team = gateway.admin("POST", f"{org}/teams", {"name": "poor"})["id"]
    secret = gateway.admin("POST", f"{org}/keys", {"team_id": team, "name": "poor"})["secret"]
    gateway.admin("PUT", f"{org}/settings/credits.required?wait=fleet", {"value": "true"})
    with OpenAI(base_url=gateway.base_url, api_key=secret) as client:
        error = refused_with(client, 402)
        assert type(error) is openai.APIStatusError, "the SDK has no type of its own for 402"
        assert (error.code, error.type) == ("insufficient_credits", "insufficient_quota")
        assert error.response.headers["x-should-retry"] == "false"
        gateway.admin("POST", f"{org}/credits/movements", {"kind": "grant", "amount_usd": "1"})

        def served() -> Any:
            try:
                return ask(client, PRICED)
            except openai.APIStatusError as error:
                assert error.status_code in (402, 503), error
                return None

        assert eventually("the credit is there", served).choices[0].message.content


def test_an_exhausted_budget_is_an_api_status_error_of_402(gateway: Gateway, upstream: Upstream) -> None:
    """B11."""
    key_id, secret = gateway.issue_key(name="thrifty")
    budget = {"name": "thrifty", "key_id": key_id, "limit_usd": "0.000000001", "window": "total"}
    gateway.admin("POST", f"{gateway.org}/budgets?wait=fleet", budget)
    with OpenAI(base_url=gateway.base_url, api_key=secret) as client:
        error = refused_with(client, 402)
        assert type(error) is openai.APIStatusError
        assert (error.code, error.type) == ("budget_exceeded", "insufficient_quota")
        assert error.response.headers["x-should-retry"] == "false"


def test_a_rate_limit_of_the_key_is_a_rate_limit_error_with_a_time_to_wait(gateway: Gateway) -> None:
    """B11, E.2."""
    key_id, secret = gateway.issue_key(name="slow")
    limit = {"name": "slow", "key_id": key_id, "requests_per_minute": 1}
    gateway.admin("POST", f"{gateway.org}/rate-limits?wait=fleet", limit)
    with OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            for _ in range(10):
                ask(client, CHAT)
        assert (refused.value.status_code, refused.value.code) == (429, "rate_limit_exceeded")
        headers = refused.value.response.headers
        assert int(headers["retry-after"]) > 0 and headers["x-ratelimit-limit-requests"] == "1"
