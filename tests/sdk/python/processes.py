"""Child processes of the tests: starts them, waits for a line of output, ends them, finds what they left.

Used by gateway.py and upstream.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

# Nobody waits for them where all is well, so they may be long: machines that run tests stand still now and then.
START_SECONDS = 120
STOP_SECONDS = 60
PATIENCE_SECONDS = 30
POLL_SECONDS = 0.02

T = TypeVar("T")


def eventually(what: str, probe: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """The first value of `probe` that is not None. An AssertionError names `what` when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found is not None:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(POLL_SECONDS)


class Process:
    """A child that ends with the tests, however they do.

    Its output goes to two files, so that no full pipe can stop it.
    """

    def __init__(self, args: Sequence[str | Path], env: Mapping[str, str], logs: Path) -> None:
        self._name = Path(args[0]).name
        self._out, self._err = logs / f"{self._name}.out", logs / f"{self._name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, args)]
            self._child = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def log(self) -> str:
        texts = (path.read_text(errors="replace") for path in (self._out, self._err))
        return "\n".join(texts)

    def wait_output(self, pattern: str) -> str:
        """The first group of `pattern` in the standard output, once it is there."""

        def found() -> str | None:
            ended = self._child.poll()
            match = re.search(pattern, self._out.read_text(errors="replace"))
            assert match or ended is None, f"{self._name} ended with {ended}:\n{self.log}"
            return match[1] if match else None

        try:
            return eventually(f"{self._name} prints {pattern!r}", found, START_SECONDS)
        except AssertionError as error:
            error.add_note(self.log)
            self.kill()
            raise

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self._name} did not stop within {STOP_SECONDS} s:\n{self.log}") from None

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()


def processes_at(directory: Path) -> list[str]:
    """The processes that work in `directory` or have it in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            works_in = (entry / "cwd").readlink()
        except OSError:
            continue  # It has ended, or is someone else's.
        if str(directory) in command or works_in.is_relative_to(directory):
            found.append(f"{entry.name} {command}")
    return found
