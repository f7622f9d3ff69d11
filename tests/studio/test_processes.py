"""Runs outlive the page and the studio, and there is never more than one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import locked
from tlora_cli.studio import processes
from tlora_cli.studio.drafts import changing

SLEEPER = """
import signal, sys, time
def stop(number, frame):
    print("stopped by SIGTERM; saved after step 3", flush=True)
    time.sleep(0.3)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("loading", flush=True)
if "fail" in sys.argv:
    print("error: the base is gone\\n  fix:   get it", flush=True)
    sys.exit(2)
time.sleep(60)
"""
WORKS = {"luna": Path("runs/luna"), "momo": Path("runs/momo")}


@pytest.fixture(autouse=True)
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a program that sleeps in the place of the training; end what a test began."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    monkeypatch.setattr(processes, "PACKAGE", "sleeper")
    yield
    for name in WORKS:
        process = processes.process_of(name)
        if process is not None and process.alive:
            with suppress(ProcessLookupError):
                os.kill(process.pid, 9)


def until(what: Callable[[], object]) -> None:
    for _ in range(300):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def test_a_run_is_begun_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def start(name: str) -> None:
        try:
            processes.begin(name, ["--config", f"{name}.yaml"], WORKS)
        except UserError as error:
            refused.append(error.what)

    tabs = [threading.Thread(target=start, args=(name,)) for name in ("luna", "luna", "momo")]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(refused) == 2 and all("a run goes on" in one for one in refused)
    assert len(processes.busy_runs(WORKS)) == 1


def test_it_is_found_again_by_another_studio_and_stopped_once() -> None:
    processes.begin("luna", ["--config", "luna.yaml"], WORKS)
    before = processes.process_of("luna")
    assert before is not None and os.getsid(before.pid) == before.pid, "a session of its own"
    until(lambda: "loading" in processes.output_of("luna"))
    child = processes._CHILDREN.pop("luna")  # a new studio knows its file alone
    again = processes.process_of("luna")
    assert again is not None and again.alive and processes.busy_runs(WORKS) == ["luna"]
    processes.ask_to_stop("luna", WORKS["luna"])
    processes.ask_to_stop("luna", WORKS["luna"])  # a second signal would end it at once
    assert child.wait(10) == 143
    said = processes.output_of("luna")
    assert said[0] == "$ tlora train --config luna.yaml"
    assert said[1:] == ["loading", "stopped by SIGTERM; saved after step 3"]
    assert not processes.failure_of("luna")
    with pytest.raises(UserError, match="ended already"):
        processes.ask_to_stop("luna", WORKS["luna"])


def test_a_number_that_came_again_is_no_run() -> None:
    process = processes.RunProcess(os.getpid(), 1.0, ["tlora"])
    assert not process.alive


def test_a_failure_is_told_as_the_program_said_it() -> None:
    processes.begin("luna", ["fail"], WORKS)
    until(lambda: not processes.busy_runs(WORKS))
    assert processes.failure_of("luna") == "error: the base is gone\n  fix:   get it"


def test_a_run_of_a_terminal_is_seen_and_left_alone() -> None:
    with locked(WORKS["momo"]):
        assert processes.busy_runs(WORKS) == ["momo"]
        with pytest.raises(UserError, match="a run goes on: momo"):
            processes.begin("luna", [], WORKS)
        with pytest.raises(UserError, match="begun in a terminal"):
            processes.ask_to_stop("momo", WORKS["momo"])


def test_the_page_starts_it_once_and_shows_it(client: TestClient, draft: str) -> None:
    with changing(draft) as now:
        now.plan = {"ready": True, "text": "a: recipe\n", "keeps_mask": False, "run": "runs/luna"}
        now.plan["wishes"] = now.wishes
    answers = [client.post(f"/api/{draft}/start", json={}) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 400]
    assert answers[1].json()["what"] == "a run goes on: luna"
    assert Path("luna.yaml").read_text() == "a: recipe\n"
    told = client.get(f"/api/state?name={draft}").json()
    assert told["works"] == [{"name": "luna", "state": "running"}]
    assert told["shown"]["run"]["state"] == "starting"
    values = {"class_name": "ghost"}
    change = client.post(f"/api/{draft}/change", json=values)
    assert "learned already" in change.json()["what"]
    assert client.post(f"/api/{draft}/stop", json={}).status_code == 200
    until(lambda: not processes.busy_runs(WORKS))
    drawn = client.post(f"/api/{draft}/draw", json={"prompts": ["a V*"]})
    assert drawn.json()["what"] == "nothing was learned yet"
