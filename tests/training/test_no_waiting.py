"""A training step never makes the host wait for the device.

The step runs on the meta device: its tensors have no values, so reading one (`item`, `int`, `bool`,
`tolist`, a branch on it) fails. What lies on the host, such as the drawn timesteps, can be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from meta_runs import meta_run
from torch import Tensor

from tlora_cli.foundation.devices import HostCopy
from tlora_cli.training import step
from tlora_cli.training.metrics import Pending, StepRecord


@pytest.mark.parametrize("method", ["tlora", "adalora", "oft_v2"])
def test_a_step_reads_nothing_back(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = meta_run(tmp_path, monkeypatch, "sdxl", method, train__steps=3)
    run._step()  # AdaLoRA prunes in the middle of a run
    run._step()
    assert run.state.step == 2


def test_prodigy_reads_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = meta_run(tmp_path, monkeypatch, "flux", "tlora", train__optimizer={"name": "prodigy"})
    run._step()
    run._step()
    assert run.state.step == 2


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "piecewise", "points": [[0, 4], [1000, 2]]},
        {"kind": "step", "points": [[0, 4], [500, 2]]},
        {"kind": "random"},
        {"axis": "logsnr"},
    ],
)
def test_a_step_of_any_schedule_reads_nothing_back(
    schedule: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = meta_run(tmp_path, monkeypatch, "sdxl", "tlora", adapter={"schedule": schedule})
    run._step()


def test_a_step_that_reads_a_tensor_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = meta_run(tmp_path, monkeypatch, "sdxl", "tlora")
    own = step.sample_losses

    def reading(*args: Any, **kwargs: Any) -> Tensor:
        loss = own(*args, **kwargs)
        assert float(loss.detach().sum()) > 0
        return loss

    monkeypatch.setattr(step, "sample_losses", reading)
    with pytest.raises(RuntimeError, match="meta"):
        run._step()


# --- the numbers that are read later --------------------------------------------------------------


def record(step: int) -> StepRecord:
    return StepRecord(step, float("nan"), 500.0, 4.0, 1e-4, None, 1.0, 1.0)


def test_pending_fills_in_loss_and_estimate() -> None:
    pending = Pending()
    pending.put(record(1), torch.tensor(0.25), None)
    pending.put(record(2), torch.tensor(0.5), torch.tensor(3e-6, dtype=torch.float64))
    pending.put(record(3), torch.tensor(0.75), 4e-6)
    got = [(one.step, one.loss, one.d) for one in pending.take(wait=False)]
    assert got == [(1, 0.25, None), (2, 0.5, 3e-6), (3, 0.75, 4e-6)]
    assert not list(pending.take(wait=True))


class Event:
    """Stands for a CUDA event that is reached when the test says so."""

    def __init__(self) -> None:
        self.reached = False
        self.waited = False

    def query(self) -> bool:
        return self.reached

    def synchronize(self) -> None:
        self.waited = self.reached = True


def test_pending_does_not_wait_unless_told() -> None:
    pending, events = Pending(), [Event(), Event(), Event()]
    for number, event in enumerate(events):
        pending.put(record(number), torch.tensor(float(number)), None)
        one, copy = pending._waiting.pop()
        pending._waiting.append((one, HostCopy(copy.values, event)))  # type: ignore[arg-type]
    events[0].reached = events[2].reached = True
    assert [one.step for one in pending.take(wait=False)] == [0], "in order, the rest later"
    assert not any(event.waited for event in events)
    assert [one.step for one in pending.take(wait=True)] == [1, 2]
    assert events[1].waited
