"""A run in a sentence: learned or not, how alike, how obedient, which step, where it overfits."""

from __future__ import annotations

from dataclasses import dataclass

from tlora_cli.training.checkpoint_scores import ERRORS, Record, best, overfitting
from tlora_cli.training.report.reading import Run


@dataclass(frozen=True)
class Verdict:
    """The sentence of a report.

    Attributes:
        kind: `good`, `bad`, or `open` if nothing is known.
        text: the sentence.
        more: what it rests on, or how to find out.
        step: the best step; None if nothing was measured.
    """

    kind: str
    text: str
    more: str
    step: int | None = None


def verdict(run: Run) -> Verdict:
    """Return what the run's own figures say; where it has none, that."""
    if not run.metrics.steps:
        return Verdict("open", "No step was made yet, so there is nothing to judge.", "")
    if run.scores is not None and run.scores.steps:
        return _measured(run.scores, run.state == "finished")
    return Verdict(
        "open",
        "Whether it learned was not measured. Look at the pictures below.",
        "With train.select: auto a run measures it while it trains, and keeps the best step; "
        "tlora evaluate measures an adapter that is there.",
    )


def _measured(record: Record, finished: bool) -> Verdict:
    scores, begun = record.scores(), overfitting(record)
    chosen = best(scores)
    gain, error = record.gain(chosen.step)
    learned = gain > ERRORS * error
    so_far = "" if finished else " so far"
    if learned:
        text = (
            f"Learned. Step {chosen.step} is the best{so_far}: {_percent(chosen.likeness)} of the "
            f"way from the base's own pictures to the training picture (likeness), and "
            f"{_percent(chosen.agreement)} as obedient to prompts as the base (agreement). "
        )
    else:
        text = (
            f"Not learned{' yet' if not finished else ''}: the pictures of the best step, "
            f"{chosen.step}, are no more like the training picture than the base's own, "
            "beyond chance. "
        )
    if begun is not None:
        text += f"Overfitting begins by step {begun}: from there it follows prompts less."
    else:
        text += f"No overfitting is seen up to step {scores[-1].step}."
    agreeing = len(record.steps[chosen.step].agreement)
    alike = len(next(iter(record.steps[chosen.step].likeness.values())))
    more = (
        f"Likeness of {alike} pictures above the base's: {gain:+.2f} \u00b1 {error:.2f} "
        f"(standard error), 1 being the training picture itself; agreement over {agreeing} "
        "prompts. Few pictures: tlora evaluate draws more."
    )
    return Verdict("good" if learned else "bad", text, more, chosen.step)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
