"""A studio in a folder of the test's own, asked as its page asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from studio_page import ADDRESS, PORT, TOKEN, drawing

from tlora_cli.studio import processes
from tlora_cli.studio.app import make_app
from tlora_cli.studio.jobs import Jobs
from tlora_cli.studio.security import Gate
from tlora_cli.studio.works import Works


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "_CHILDREN", {})


@pytest.fixture
def works() -> Iterator[Works]:
    made = Works(Jobs())
    yield made
    made.jobs.stop()


@pytest.fixture
def stranger(works: Works) -> TestClient:
    """Return a client at the right address, without the token."""
    app = make_app(works, Gate("127.0.0.1", PORT, TOKEN))
    return TestClient(app, ADDRESS, follow_redirects=False)


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    """Return a client that asks as the page does."""
    stranger.cookies.set(f"tlora-studio-{PORT}", TOKEN)
    stranger.headers["Origin"] = ADDRESS
    return stranger


@pytest.fixture
def draft(client: TestClient) -> str:
    """Return the name of a drawing that was given, with its class and base."""
    name = client.post("/api/photo?name=Luna.png", content=drawing()).json()["name"]
    values = {"class_name": "cat", "base": "toy-sdxl"}
    assert client.post(f"/api/{name}/change", json=values).status_code == 200
    return str(name)


@pytest.fixture
def give(client: TestClient) -> Callable[[str, bytes], tuple[int, str]]:
    """Return what gives a file, and returns the status and what is said."""

    def post(name: str, content: bytes) -> tuple[int, str]:
        answer = client.post("/api/photo", params={"name": name}, content=content)
        said = answer.json()
        return answer.status_code, f"{said.get('what', '')}\n{said.get('do', '')}"

    return post
