"""An upstream that fails on order, `nemo-testenv upstream`, and models that the gateway serves from it.

A script in the upstream's model name, after `!`, says how it fails: tests/src/script.rs. Used by conftest.py.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import openai
from openai import OpenAI

from gateway import Gateway, binary
from processes import Process, eventually

API_KEY = "sk-upstream-canary-81b0c2"
# Model of the gateway -> model of the upstream.
MODELS = {
    "steady": "mock",
    "broken": "mock!status=500",
    # For longer than the gateway waits itself.
    "limited": "mock!status=429,header=retry-after:3",
    "refusing": "mock!status=400",
    "distrustful": "mock!status=401",
    "cut-off": "mock!pieces=20,cut=900",
    "reset": "mock!pieces=20,reset=900",
    "unterminated": "mock!no-done",
    "regretful": "mock!error-event=3",
    "endless": "mock!pieces=5000,pause=20ms",
    "sluggish": "mock!delay=60s",
    "secretive": "mock!usage=none",
}
# Nano-dollars per million tokens, as in the admin API.
PRICE = {"input": 2_500_000_000, "output": 10_000_000_000}


class Upstream:
    def __init__(self, gateway: Gateway) -> None:
        testenv = Path(os.environ.get("NEMO_TESTENV_BIN") or binary().with_name("nemo-testenv"))
        assert testenv.is_file(), f"{testenv} is missing: `cargo build -p nemo-tests --bins` makes it"
        self._logs = tempfile.TemporaryDirectory(prefix="nemo-sdk-upstream-")
        args: list[str | Path] = [testenv, "upstream", "--api-key", API_KEY]
        self._process = Process(args, {}, Path(self._logs.name))
        url = self._process.wait_output(r"listening on (\S+)")
        self._gateway = gateway
        self._provision(url)

    def _provision(self, url: str) -> None:
        admin = self._gateway.admin
        credential = admin(
            "POST", "/credentials", {"name": "upstream", "provider": "custom", "secret": API_KEY}
        )
        for name, upstream_model in MODELS.items():
            model = {
                "id": name, "display_name": name, "owned_by": "tests", "context_window": 128_000,
                "max_output_tokens": 4096, "endpoints": ["chat.completions", "completions"],
                "offerings": [{"provider": "custom", "upstream_model": upstream_model, "price": PRICE}],
            }  # fmt: skip
            admin("PUT", f"/models/{name}", {"model": model})
            deployment = {
                "provider": "custom", "base_url": url, "credential_id": credential["id"], "model": name,
                "upstream_model": upstream_model,
            }  # fmt: skip
            admin("POST", "/deployments", deployment)
        with OpenAI(base_url=self._gateway.base_url, api_key=self._gateway.api_key) as client:
            eventually(
                "the models are served", lambda: set(MODELS) <= {it.id for it in client.models.list()} or None
            )

    def calls(self) -> int:
        """How many requests it has had, with this one: it numbers its answers."""
        with OpenAI(base_url=self._gateway.base_url, api_key=self._gateway.api_key) as client:
            answer = client.chat.completions.create(
                model="steady", messages=[{"role": "user", "content": "count"}]
            )
        number = re.fullmatch(r"chatcmpl-mock(\d+)", answer.id)
        assert number, answer.id
        return int(number[1])

    def stop(self) -> None:
        code = self._process.terminate()
        self._logs.cleanup()
        assert code == 0, code


def eventually_accepted(client: OpenAI) -> None:
    """Waits until the node knows a key that was issued just now."""

    def accepted() -> bool | None:
        try:
            client.models.list()
        except openai.AuthenticationError:
            return None
        return True

    eventually("the key is accepted", accepted)
