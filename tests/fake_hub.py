"""A Hub on this machine: enough of its protocol for looking at repositories and their files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "c" * 40


@contextmanager
def fake_hub(
    repositories: dict[str, Path], gated: Collection[str] = (), token: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as repositories; yield the address, and the paths that are asked for.

    Those of `gated` show what they are, but none of their files. `token` is known as me's.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0].removeprefix("/api/models/").strip("/")
            if not path:
                return self._send(200, {})
            if path == "api/whoami-v2":
                known = self.headers["Authorization"] == f"Bearer {token}"
                return self._send(200 if known else 401, {}, b'{"name": "me"}')
            if path.count("/") == 0 or path.startswith("api/"):
                return self._send(404, {})
            owner, name, *rest = path.split("/")
            repository = f"{owner}/{name}"
            if repository not in repositories:
                return self._send(404, {"X-Error-Code": "RepoNotFound"})
            folder, verb = repositories[repository], rest[0] if rest else ""
            if len(rest) > 1 and rest[1] not in ("main", COMMIT):
                return self._send(404, {"X-Error-Code": "RevisionNotFound"})
            if verb != "resolve":
                return self._send(200, {}, json.dumps(about(repository, folder)).encode(), body)
            if repository in gated:
                return self._send(403, {"X-Error-Code": "GatedRepo"})
            file = folder.joinpath(*rest[2:])
            if not file.is_file():
                return self._send(404, {"X-Error-Code": "EntryNotFound"})
            data = file.read_bytes()
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            return self._send(200, {"ETag": tag, "X-Repo-Commit": COMMIT}, data, body)

        def _send(
            self, status: int, headers: dict[str, str], data: bytes = b"", body: bool = True
        ) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def reach(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path | None = None) -> None:
    """Let this process use the Hub of an address, with an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if cache is not None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def about(repository: str, folder: Path) -> dict[str, Any]:
    """Return what the Hub tells of a repository."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        "id": repository,
        "sha": COMMIT,
        "siblings": [
            {"rfilename": file.relative_to(folder).as_posix(), "size": file.stat().st_size}
            for file in files
        ],
    }
