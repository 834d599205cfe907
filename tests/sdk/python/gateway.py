"""`nemo standalone` as a user would start it, and its admin API. Used by conftest.py."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from processes import Process, eventually, processes_at

LISTENERS = ("--listen", "--admin-listen", "--grpc-listen", "--ops-listen", "--admin-ops-listen")
ENVIRONMENT = ("PATH", "TMPDIR", "NEMO_PG_BIN", "NEMO_POSTGRES_USER")

Json = dict[str, Any]


def binary() -> Path:
    """`NEMO_BIN`, else the debug build."""
    default = Path(__file__).resolve().parents[3] / "target/debug/nemo"
    path = Path(os.environ.get("NEMO_BIN") or default).resolve()
    assert path.is_file(), f"{path} is missing: `cargo build -p nemo` makes it, or set NEMO_BIN"
    return path


class Gateway:
    """Running, with the demo provider, its own PostgreSQL and a new data directory."""

    def __init__(self) -> None:
        self._dir = Path(tempfile.mkdtemp(prefix="nemo-sdk-"))
        # Started by root, PostgreSQL runs as another user, who has to reach the data directory.
        self._dir.chmod(0o711)
        self.data_dir = self._dir / "data"
        # No variable of a provider gets through, so the demo answers.
        env = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        args: list[str | Path] = [binary(), "standalone", "--data-dir", self.data_dir]
        for listener in LISTENERS:
            args += [listener, "127.0.0.1:0"]
        self._process = Process(args, env | {"NEMO_LOG": "info"}, self._dir)
        try:
            self._connect()
        except BaseException:
            self.kill()
            raise

    def _connect(self) -> None:
        self._process.wait_output("(Ctrl-C stops it)")
        self.base_url = self._process.wait_output(r"Base URL +(\S+)")
        self.api_key = self._process.wait_output(r"Key +(sk-nemo-\S+)")
        self._admin_url = self._process.wait_output(r"Admin API +(\S+)")
        self._admin_token = self._process.wait_output(r"Admin token +(adm-nemo-\S+)")
        self.org_id = self.admin("GET", "/organizations")["organizations"][0]["id"]
        self.team_id = self.admin("GET", f"{self.org}/teams")["teams"][0]["id"]

    @property
    def org(self) -> str:
        return f"/organizations/{self.org_id}"

    @property
    def log(self) -> str:
        return self._process.log

    def admin(self, method: str, path: str, body: Json | None = None) -> Json:
        """One call of the admin API. Anything but a success raises, with the answer in a note."""
        request = urllib.request.Request(
            self._admin_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self._admin_token}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                error.add_note(error.read().decode(errors="replace"))
            raise

    def issue_key(self, **settings: Any) -> tuple[str, str]:
        """Id and secret of a new key."""
        body = {"team_id": self.team_id, "name": "test", **settings}
        issued = self.admin("POST", f"{self.org}/keys", body)
        return issued["key"]["id"], issued["secret"]

    def row(self, request_id: str | None) -> Json:
        """The row of one request in the request log, once it has arrived there."""
        assert request_id

        def found() -> Json | None:
            try:
                return self.admin("GET", f"{self.org}/requests/{request_id}")
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                raise

        return eventually(f"a row of the request log for {request_id}", found)

    def rows_with(self, key_id: str, count: int) -> list[Json]:
        """The rows of a key, newest first, once there are at least `count`."""

        def found() -> list[Json] | None:
            rows = self.admin("GET", f"{self.org}/requests?key_id={key_id}")["requests"]
            return rows if len(rows) >= count else None

        return eventually(f"{count} rows of key {key_id}", found)

    def stop(self) -> None:
        """Stops as a supervisor would. An unclean end or a process left behind is an AssertionError."""
        running = processes_at(self._dir)
        assert any("postgres" in process for process in running), f"where is PostgreSQL? {running}"
        code = self._process.terminate()
        left = processes_at(self._dir)
        assert code == 0, f"exit code {code}:\n{self.log}"
        assert not left, f"left behind: {left}"

    def kill(self) -> None:
        """Ends it if it still runs, and removes its files."""
        self._process.kill()
        shutil.rmtree(self._dir, ignore_errors=True)
