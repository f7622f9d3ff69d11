"""The server: whom it lets in, what it says, and that a vote it has acknowledged is never lost."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from study_folders import small_study
from training_runs import ROOT

from tlora_cli.foundation.errors import UserError
from tlora_cli.study.design import Study
from tlora_cli.study.server import StudyServer
from tlora_cli.study.trials import EQUAL
from tlora_cli.study.votes import FILE, QUESTIONS, Votes


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return small_study(tmp_path)


@contextmanager
def serving(study: Study) -> Iterator[StudyServer]:
    with StudyServer(study, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(
    server: StudyServer | int, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Ask as a browser does, but for the headers that are given; an empty one is left out."""
    port = server if isinstance(server, int) else server.server_port
    sent = {"Host": f"127.0.0.1:{port}"}
    if method == "POST":
        sent |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    sent |= {key.replace("_", "-"): value.format(port=port) for key, value in headers.items()}
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    asked.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for key, value in sent.items():
        if value:
            asked.putheader(key, value)
    if data is not None:
        asked.putheader("Content-Length", str(len(data)))
    asked.endheaders(data)
    answer = asked.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    asked.close()
    return found


def vote(position: int = 0, question: str = "text", answer: str = "left", **more: Any) -> Any:
    whole = {"rater": "Ann", "position": position, "question": question, "answer": answer}
    return {**whole, "seconds": 2.5, **more}


# --- walls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Host": "evil.example:{port}"}),
        ("GET", {"Host": "127.0.0.1:1"}),
        ("GET", {"Host": ""}),
        ("GET", {"Origin": "http://evil.example"}),
        ("GET", {"Origin": "null"}),
        ("GET", {"Sec_Fetch_Site": "cross-site"}),
        ("GET", {"Sec_Fetch_Site": "same-site"}),
        ("POST", {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}),
        ("POST", {"Origin": "http://127.0.0.1:1"}),
        ("POST", {"Origin": "http://localhost:{port}"}),  # asked under the other name
        ("POST", {"Origin": "null"}),
        ("POST", {"Origin": ""}),
        ("POST", {"Sec_Fetch_Site": "cross-site"}),
        ("POST", {"Sec_Fetch_Site": "none"}),
        ("POST", {"Content_Type": "text/plain"}),  # what a form of another page may send
    ],
)
def test_others_get_nothing(study: Study, method: str, headers: dict[str, str]) -> None:
    with serving(study) as server:
        path = "/vote" if method == "POST" else "/state?rater=Ann"
        status, _, body = ask(server, method, path, vote() if method == "POST" else None, **headers)
        assert status == 403 and len(body) < 80
        assert Votes(study).names() == {}  # not even a rater was made


def test_it_listens_on_this_computer_alone(study: Study) -> None:
    with serving(study) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match="can't listen on port"):
            StudyServer(study, server.server_port)


def test_answers_carry_a_strict_policy(study: Study) -> None:
    with serving(study) as server:
        names = [pair.first for pair in study.pairs[:1]]
        for path in ("/", "/rate?rater=Ann", "/study.js", "/study.css", "/none", *(
            f"/picture/{name}.png" for name in names
        )):  # fmt: skip
            status, headers, body = ask(server, "GET", path, Host="localhost:{port}")
            assert status == (404 if path == "/none" else 200)
            policy = headers["Content-Security-Policy"]
            assert (
                "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            )
            assert "frame-ancestors 'none'" in policy and headers["X-Frame-Options"] == "DENY"
            assert headers["X-Content-Type-Options"] == "nosniff"
            if headers["Content-Type"].startswith("text/html"):
                assert b"<style" not in body and not re.search(rb"<script[^>]*>[^<]", body)
                assert not re.findall(rb'(?:src|href)="(?!/|data:,)', body)


@pytest.mark.parametrize(
    "path",
    [
        "/picture/../study.json",
        "/picture/..%2fstudy.json",
        "/picture/000000000000.png",
        "/votes.sqlite",
        "/study.json",
        "//evil.example/",
        "/vote",
    ],
)
def test_nothing_but_its_pages_and_pictures_is_given(study: Study, path: str) -> None:
    with serving(study) as server:
        status, _, body = ask(server, "GET", path)
        assert (status == 404 and body == b"there is no such page") or b"no such picture" in body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"[" * 3000, 400),
        (vote(rater=""), 400),
        (vote(rater="x" * 61), 400),
        (vote(rater="a\u202eb"), 400),
        (vote(rater=["Ann"]), 400),
        (vote(position=99), 400),
        (vote(position=-1), 400),
        (vote(position=10**30), 400),
        (vote(question="which"), 400),
        (vote(answer="up"), 400),
        (vote(seconds=-1), 400),
        (vote(seconds=float("nan")), 400),
        (vote(note="x" * 5000), 413),
    ],
)
def test_what_is_no_vote_is_told_and_the_server_goes_on(
    study: Study, body: Any, status: int
) -> None:
    with serving(study) as server:
        assert ask(server, "POST", "/vote", body)[0] == status
        assert Votes(study).all() == []
        assert ask(server, "POST", "/vote", vote())[0] == 200
        assert len(Votes(study).all()) == 1


# --- what a rater sees ----------------------------------------------------------------------------


def test_the_page_of_a_rater_tells_no_method_and_escapes_names(study: Study) -> None:
    name = '<img src=x onerror="alert(1)">'
    with serving(study) as server:
        status, _, body = ask(
            server, "GET", "/rate?rater=%3Cimg%20src=x%20onerror=%22alert(1)%22%3E"
        )
        assert status == 200 and name.encode() not in body and b"&lt;img" in body
        state = json.loads(ask(server, "GET", "/state?rater=Ann")[2])
        assert set(state) == {
            *("done", "position", "total", "answered", "prompt", "reference", "left", "right"),
            *("answers", "ahead"),
        }
        assert "lora" not in json.dumps(state)
        assert ask(server, "GET", "/rate?rater=")[0] == 200  # the entrance, with a message
        assert ask(server, "GET", "/state?rater=Ann&position=999")[0] == 400
        assert ask(server, "GET", "/state?rater=Ann&position=x")[0] == 400


def test_a_rater_goes_on_where_he_was(study: Study) -> None:
    with serving(study) as server:
        total = json.loads(ask(server, "GET", "/state?rater=Ann")[2])["total"]
        for position in range(total):
            for question in QUESTIONS:
                state = json.loads(ask(server, "GET", "/state?rater=%20ann%20")[2])
                assert state["position"] == position and question not in state["answers"]
                said = vote(position, question, "right", rater="ANN")
                assert ask(server, "POST", "/vote", said)[0] == 200
        assert json.loads(ask(server, "GET", "/state?rater=Ann")[2])["done"]
        assert ask(server, "POST", "/vote", vote(0, "text", "same"))[0] == 200  # on second thought
    votes = Votes(study)
    assert list(votes.names().values()) == ["Ann"]
    assert len(votes.all()) == total * 3
    assert votes.answered(0)[0]["text"] == "same"
    equal = [one for one in votes.all() if one.trial.kind == EQUAL]
    assert equal and all(one.trial.left == one.trial.right for one in equal)


# --- a server that is killed ----------------------------------------------------------------------


def test_a_killed_server_loses_no_vote(study: Study) -> None:
    """Votes are sent without a pause while the server is killed; each acknowledged one is there."""
    acknowledged: list[tuple[str, int, str]] = []
    planned = (  # without end: a fast computer doesn't finish before the server is killed
        (f"Rater {number}", place, question)
        for number in itertools.count()
        for place in range(12)
        for question in QUESTIONS
    )
    for attempt in range(3):
        server = subprocess.Popen(
            [sys.executable, "-m", "tlora_cli", "study", "serve", str(study.folder), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", server.stdout.readline())
        assert found
        killer = threading.Timer(0.05 + 0.05 * attempt, server.send_signal, [signal.SIGKILL])
        try:
            for sent, (rater, place, question) in enumerate(planned):
                if sent == 3:
                    killer.start()
                body = vote(place, question, "right", rater=rater)
                status, _, _ = ask(int(found[1]), "POST", "/vote", body)
                assert status == 200
                acknowledged.append((rater, place, question))
        except (OSError, http.client.HTTPException):
            pass  # killed before it answered
        killer.join()
        server.wait()
        server.stdout.close()
        votes = Votes(study)
        numbers = {rater: votes.rater(rater) for rater, _, _ in acknowledged}
        kept = {(one.rater, one.trial.position, one.question) for one in votes.all()}
        assert {(numbers[rater], *asked) for rater, *asked in acknowledged} <= kept
        assert len(acknowledged) >= 3 * (attempt + 1)
    with sqlite3.connect(study.folder / FILE) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
