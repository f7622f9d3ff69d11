"""Uploads to a Hub that stands in for the real one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from publishing import ADAPTER

from tlora_cli.tools.publish import hub

Cli = Callable[..., tuple[int, str, str]]


# --- the Hub --------------------------------------------------------------------------------------


class Hub:
    """A server that answers as the Hub does, and keeps what it is given."""

    def __init__(self) -> None:
        self.token, self.private, self.refused = "hf_right", True, False
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.answer(*hub.get(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer(*hub.post(self.path, body))

            def answer(self, status: int, data: Any) -> None:
                if self.headers.get("Authorization") != f"Bearer {hub.token}":
                    status, data = 401, {"error": "Invalid token"}
                held = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(held)))
                self.end_headers()
                self.wfile.write(held)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def get(self, path: str) -> tuple[int, Any]:
        """Answer a question."""
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "anna", "auth": {"type": "access_token"}}
        if path.startswith("/api/models/anna/dog") and not self.refused:
            about = {"id": "anna/dog", "private": self.private, "sha": "0" * 40, "siblings": []}
            return 200, about
        return 404, {"error": path}

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        """Take something."""
        if self.refused:
            return 403, {"error": "no"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.url}/anna/dog"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return 200, {"files": files}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            commit = f"{self.url}/anna/dog/commit/1"
            return 200, {"commitUrl": commit, "commitOid": "1" * 40, "commitMessage": "x"}
        return 404, {"error": path}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a Hub that the real client talks to."""
    one = Hub()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HfApi", partial(HfApi, endpoint=one.url, token="hf_right"))
    yield one
    one.server.shutdown()
    one.server.server_close()


def visibility(asked: dict[str, Any]) -> str:
    """Return what a repository was asked to be; older clients say it as `private`."""
    return str(asked.get("visibility") or ("private" if asked["private"] else "public"))


def test_an_upload_is_private_and_whole(cli: Cli, flux: Path, tmp_path: Path, server: Hub) -> None:
    out = tmp_path / "out"
    status, said, err = cli(flux, "--output", out, "--upload", "anna/dog")
    assert status == 0, err
    assert f"uploaded to {server.url}/anna/dog" in said
    assert [visibility(one) for one in server.created] == ["private"]
    local = {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}
    assert server.files == local and ADAPTER in local
    assert 'load_lora_weights("anna/dog"' in local["README.md"].decode()


def test_public_only_when_told_to(cli: Cli, flux: Path, tmp_path: Path, server: Hub) -> None:
    server.private = False
    status, _, err = cli(flux, "--output", tmp_path / "a", "--upload", "anna/dog")
    assert status == 2 and "anna/dog is public" in err
    assert not server.files and (tmp_path / "a" / ADAPTER).exists()
    status, _, err = cli(flux, "--output", tmp_path / "b", "--upload", "anna/dog", "--public")
    assert status == 0, err
    assert visibility(server.created[-1]) == "public" and ADAPTER in server.files


def test_a_hub_that_does_not_answer(
    cli: Cli, flux: Path, tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    server.token = "hf_another"
    status, _, err = cli(flux, "--output", out, "--upload", "anna/dog")
    assert status == 3 and "hf auth login" in err and not out.exists()
    server.token, server.refused = "hf_right", True
    status, _, err = cli(flux, "--output", out, "--upload", "anna/dog")
    assert status == 3 and "does not allow it (403)" in err
    assert f"hf upload --private anna/dog {out}" in err and (out / ADAPTER).exists(), (
        "the folder is kept"
    )
    monkeypatch.setattr(hub, "HfApi", partial(HfApi, endpoint="http://127.0.0.1:9", token="hf_x"))
    status, _, err = cli(flux, "--output", tmp_path / "b", "--upload", "anna/dog")
    assert status == 4 and "can't be reached" in err and not (tmp_path / "b").exists()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    status, _, err = cli(flux, "--output", tmp_path / "b", "--upload", "anna/dog")
    assert status == 2 and "HF_HUB_OFFLINE" in err
