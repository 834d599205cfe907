"""The program in ../rust against a gateway. Named so that pytest takes it when it is told to only."""

from __future__ import annotations

import os
import subprocess

from conftest import EMBEDDINGS, VIA
from gateway import Gateway


def test_async_openai(gateway: Gateway) -> None:
    program = os.environ["NEMO_RUST_CLIENT"]
    command = [program, gateway.base_url, gateway.api_key, *VIA, *EMBEDDINGS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    print(ended.stdout, ended.stderr)
    assert ended.returncode == 0
    assert f"{5 * len(VIA) + len(EMBEDDINGS)} passed" in ended.stdout
