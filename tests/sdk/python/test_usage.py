"""The row that a request of the SDK leaves in the request log, read through the admin API."""

from __future__ import annotations

import json
from decimal import Decimal

import openai
import pytest
from openai import OpenAI

from gateway import Gateway
from shapes import CHAT, says, usage_of
from upstream import PRICE, Upstream, eventually_accepted


def test_a_request_leaves_a_row_with_its_tokens_and_cost(
    client: OpenAI, gateway: Gateway, upstream: Upstream
) -> None:
    """R000-11, R001-5, R004-28, R004-30."""
    raw = client.chat.completions.with_raw_response.create(
        model="steady", messages=says("hi"), extra_body={"nemo_metadata": {"feature": "search", "run": 7}}
    )
    answer = raw.parse()
    row = gateway.row(raw.request_id)
    prompt, completion, _ = usage_of(answer)
    nanos = (prompt * PRICE["input"] + completion * PRICE["output"]) // 1_000_000
    expected = {
        "org_id": gateway.org_id,
        "team_id": gateway.team_id,
        "endpoint": "chat.completions",
        "requested_model": "steady",
        "provider": "custom",
        "stream": False,
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": "stop",
        "input_tokens": prompt,
        "output_tokens": completion,
        "usage_estimated": False,
        "cost_nanos": nanos,
        "cost_source": "priced",
        "attempts": 1,
        "strategy": "simple-shuffle",
    }
    assert json.loads(row["metadata"]) == {"feature": "search", "run": 7}
    assert {name: row[name] for name in expected} == expected
    assert Decimal(row["cost_usd"]) == Decimal(nanos) / 10**9 == Decimal(raw.headers["x-nemo-cost-usd"])
    assert 0 < row["upstream_us"] <= row["total_us"]


def test_retries_of_the_sdk_are_requests_of_their_own(gateway: Gateway, upstream: Upstream) -> None:
    """R004-29: as many rows as requests."""
    key_id, secret = gateway.issue_key(name="counts")
    with OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=1) as client:
        eventually_accepted(client)
        for _ in range(5):
            client.chat.completions.create(model=CHAT, messages=says("hi"))
        # Limited, or cooling down because it was.
        with pytest.raises((openai.RateLimitError, openai.InternalServerError)):
            client.chat.completions.create(model="limited", messages=says("hi"))
    rows = gateway.rows_with(key_id, 7)
    statuses = sorted(row["http_status"] for row in rows)
    assert statuses[:5] == [200] * 5 and set(statuses[5:]) <= {429, 503}
    assert len({row["id"] for row in rows}) == 7


def test_unreported_usage_is_an_estimate_and_says_so(
    client: OpenAI, gateway: Gateway, upstream: Upstream
) -> None:
    """B8."""
    answer = client.chat.completions.create(model="secretive", messages=says("hi"))
    assert answer.usage is None
    row = gateway.row(answer._request_id)
    assert row["usage_estimated"] is True and row["cost_source"] == "estimated"
    assert row["input_tokens"] > 0 and row["output_tokens"] > 0


def test_a_client_that_leaves_a_stream_is_accounted_for(
    client: OpenAI, gateway: Gateway, upstream: Upstream
) -> None:
    """C4."""
    stream = client.chat.completions.create(model="endless", messages=says("hi"), stream=True)
    for at, _ in enumerate(stream):
        if at == 5:
            break
    stream.close()
    row = gateway.row(stream.response.headers["x-request-id"])
    assert (row["outcome"], row["http_status"], row["stream"]) == ("cancelled", 200, True)
    assert row["output_tokens"] > 0 and row["cost_nanos"] > 0 and row["cost_source"] == "estimated"


def test_a_client_that_stops_waiting_is_accounted_for(gateway: Gateway, upstream: Upstream) -> None:
    """C4, before the first byte."""
    key_id, secret = gateway.issue_key(name="impatient")
    with OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0) as client:
        eventually_accepted(client)
        # Longer than a machine stands still, so that the gateway has read the request.
        hurried = client.with_options(timeout=openai.Timeout(60, read=2))
        with pytest.raises(openai.APITimeoutError):
            hurried.chat.completions.create(model="sluggish", messages=says("hi"))
    (row,) = gateway.rows_with(key_id, 1)
    assert (row["outcome"], row["http_status"]) == ("cancelled", 499)
