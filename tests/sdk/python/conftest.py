"""What every test gets: one gateway per session, and clients that differ from stock code in two arguments."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from openai import OpenAI

from gateway import Gateway
from upstream import Upstream

# Loopback is not reached through a proxy, and no setting of the SDK comes from outside.
os.environ["NO_PROXY"] = "127.0.0.1"
# How much of the gateway's log is shown when a test failed.
LOG_SHOWN = 20_000

for name in [name for name in os.environ if name.startswith("OPENAI_")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    gateway = Gateway()
    try:
        yield gateway
        if request.session.testsfailed:
            # Attached to the last test, as what happens after all of them.
            print(gateway.log[-LOG_SHOWN:])
        gateway.stop()
    finally:
        gateway.kill()


@pytest.fixture(scope="session")
def upstream(gateway: Gateway) -> Iterator[Upstream]:
    upstream = Upstream(gateway)
    yield upstream
    upstream.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=gateway.api_key) as client:
        yield client
