"""One gateway per session, one upstream that speaks every dialect, and a model behind each: `via-anthropic` is served by a
deployment that the gateway calls in the words of Anthropic, and so on. What a client sees must not depend on that."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))

from gateway import Gateway, binary  # noqa: E402
from processes import Process, eventually  # noqa: E402

os.environ["NO_PROXY"] = "127.0.0.1"
for name in [name for name in os.environ if name.startswith(("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "LANG"))]:
    del os.environ[name]

API_KEY = "sk-upstream-canary-4c19d7"
PRICE = {"input": 2_500_000_000, "output": 10_000_000_000}
LOG_SHOWN = 20_000
SENTENCE = "Hello from the mock upstream, where all is well today."
# Model -> provider of its deployment, what is behind the upstream's address, and what the upstream calls it: what a model
# is capable of goes by that name.
VIA = {
    "via-openai": ("custom", "/v1", "mock"),
    "via-anthropic": ("anthropic", "/v1", "claude-sonnet-4-5-20250929"),
    "via-gemini": ("google-ai-studio", "/v1beta", "gemini-2.5-flash"),
    "via-bedrock": ("bedrock", "", "anthropic.claude-3-7-sonnet-20250219-v1:0"),
}
CHAT = ["chat.completions"]
# Embeddings have no Anthropic.
EMBEDDINGS = {
    "embed-openai": ("custom", "/v1", "mock"),
    "embed-gemini": ("google-ai-studio", "/v1beta", "gemini-embedding-001"),
    # One text in a call: lists go in pieces.
    "embed-bedrock": ("bedrock", "", "amazon.titan-embed-text-v2:0"),
}

# What is kept at the provider, and asked for by its id.
RESPONSES = {"kept-openai": ("custom", "/v1", "mock")}
VIDEOS = {
    "video-openai": ("custom", "/v1", "mock"),
    "video-gemini": ("google-ai-studio", "/v1beta", "veo-3.0-generate-001"),
}


def provision(gateway: Gateway, url: str) -> None:
    credentials: dict[str, str] = {}

    def credential(provider: str) -> str:
        if provider not in credentials:
            body = {"name": f"of-{provider}", "provider": provider, "secret": API_KEY}
            credentials[provider] = gateway.admin("POST", "/credentials", body)["id"]
        return credentials[provider]

    tables = ((CHAT, VIA), (["embeddings"], EMBEDDINGS), (["responses"], RESPONSES), (["videos"], VIDEOS))
    for endpoints, table in tables:
        for model, (provider, path, upstream_model) in table.items():
            body = {
                "id": model, "display_name": model, "owned_by": "tests", "context_window": 128_000,
                "max_output_tokens": 4096, "endpoints": endpoints,
                "offerings": [{"provider": provider, "upstream_model": upstream_model, "price": PRICE}],
            }  # fmt: skip
            gateway.admin("PUT", f"/models/{model}", {"model": body})
            deployment = {
                "provider": provider, "base_url": url.removesuffix("/v1") + path, "model": model,
                "upstream_model": upstream_model, "credential_id": credential(provider),
            }  # fmt: skip
            gateway.admin("POST", "/deployments", deployment)


@pytest.fixture(scope="session")
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    testenv = Path(os.environ.get("NEMO_TESTENV_BIN") or binary().with_name("nemo-testenv"))
    gateway = Gateway()
    logs = tempfile.TemporaryDirectory(prefix="nemo-sdk-upstream-")
    upstream = Process([testenv, "upstream", "--api-key", API_KEY], {}, Path(logs.name))
    try:
        provision(gateway, upstream.wait_output(r"listening on (\S+)"))
        served(gateway)
        yield gateway
        if request.session.testsfailed:
            print(gateway.log[-LOG_SHOWN:])
        gateway.stop()
    finally:
        gateway.kill()
        upstream.kill()


def served(gateway: Gateway) -> None:
    from openai import OpenAI

    wanted = set(VIA) | set(EMBEDDINGS) | set(RESPONSES) | set(VIDEOS)
    with OpenAI(base_url=gateway.base_url, api_key=gateway.api_key) as client:
        eventually("the models are served", lambda: wanted <= {it.id for it in client.models.list()} or None)


@pytest.fixture(params=sorted(VIA))
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def root(gateway: Gateway) -> str:
    """Without the version, as clients of Anthropic and Google want it."""
    return gateway.base_url.removesuffix("/v1")
