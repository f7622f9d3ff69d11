"""Tasks take turns in one process, which ends when it is told to, or when nobody needs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tlora_cli.foundation.errors import UserError
from tlora_cli.studio import jobs as jobs_of
from tlora_cli.studio import worker
from tlora_cli.studio.jobs import Jobs


def slow(wishes: dict[str, Any], notify: Callable[[str], None]) -> str:
    notify("begun")
    time.sleep(wishes.get("seconds", 0))
    if "error" in wishes:
        raise UserError(wishes["error"], do="mend it")
    if "fault" in wishes:
        raise ValueError(wishes["fault"])
    return f"done with {wishes['name']}"


class Here:
    """A connection to a process that is this one."""

    def send(self, message: tuple[str, dict[str, Any]]) -> None:
        self.said: list[tuple[str, Any]] = []
        answer = worker.answer_of(*message, lambda line: self.said.append(("said", line)))
        self.said.append(answer)

    def recv(self) -> tuple[str, Any]:
        return self.said.pop(0)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(worker, "resolve", lambda place: slow)
    made = Jobs()
    monkeypatch.setattr(made, "_started", Here)
    return made


def wait(jobs: Jobs) -> None:
    for _ in range(3000):
        if jobs.current is None:
            return
        time.sleep(0.02)
    raise AssertionError("it goes on")


def test_tasks_take_turns_and_what_fails_is_told(jobs: Jobs) -> None:
    done: list[str] = []
    first = jobs.submit("plan", "a", {"name": "a", "seconds": 0.2}, done.append)
    jobs.submit("mask", "a", {"name": "b"}, done.append)
    with pytest.raises(UserError, match="the studio is busy"):
        jobs.submit("plan", "a", {"name": "again"}, done.append)
    failed = jobs.submit("draw", "a", {"error": "no base"}, done.append)
    faulty = jobs.submit("export", "a", {"fault": "odd\nlines"}, done.append)
    wait(jobs)
    assert done == ["done with a", "done with b"]
    assert first.told()["state"] == "done" and first.lines == ["begun"]
    assert failed.told()["error"] == {"what": "no base", "where": "", "do": "mend it"}
    told = faulty.told()["error"]
    assert told["what"] == "internal error: ValueError: odd" and "TLORA_DEBUG=1" in told["do"]


def test_a_training_waits_for_what_is_under_way(jobs: Jobs) -> None:
    jobs.submit("draw", "a", {"name": "a", "seconds": 0.3}, lambda told: None)
    with pytest.raises(UserError, match="busy: drawing"):
        jobs.release()
    wait(jobs)
    jobs.release()


@pytest.mark.slow
def test_every_task_is_one_there_is() -> None:
    assert worker.TASKS.keys() == jobs_of.TITLES.keys()
    assert all(callable(worker.resolve(place)) for place in worker.TASKS.values())


@pytest.mark.full
def test_a_process_answers_and_is_ended() -> None:
    made = Jobs()
    failed = made.submit("export", "a", {"target": "nothing"}, lambda told: None)
    wait(made)
    assert failed.error is not None and failed.error.what.startswith("internal error: KeyError")
    process = made._process
    assert process.is_alive()
    made.release()
    assert not process.is_alive()
    slow_one = made.submit("machine", "", {}, lambda told: None)
    made.stop()
    assert slow_one.state == "failed" and str(slow_one.error).startswith("it was stopped")
