"""The section of a report that shows how checkpoints were scored, and which one was kept."""

from __future__ import annotations

from tlora_cli.foundation.axes import COLORS
from tlora_cli.foundation.pages import NOTHING, table
from tlora_cli.training.choice import ERRORS, best, overfitting
from tlora_cli.training.report.drawing import Line, Mark, line_plot
from tlora_cli.training.report.reading import Run


def scores_section(run: Run) -> str:
    """Return likeness and agreement over the steps, the best step, and where overfitting begins.

    Empty if no checkpoint was scored (`train.select`).
    """
    record = run.scores
    if record is None or not record.steps:
        return ""
    scores, begun = record.scores(), overfitting(record)
    chosen = best(scores).step
    kept = run.state == "finished" and run.recipe.train.select == "auto"
    marks = [Mark(chosen, "kept" if kept else "best so far")]
    text = f"Step {chosen} has the best balance" + (" and is the result." if kept else " so far.")
    if begun is None:
        text += " No later step is surely worse: no overfitting is seen."
    else:
        marks.append(Mark(begun, "overfitting"))
        text += f" Overfitting begins by step {begun}."
    lines = [
        Line("likeness", [(float(s.step), s.likeness) for s in scores], COLORS[0]),
        Line("agreement with prompts", [(float(s.step), s.agreement) for s in scores], COLORS[1]),
        Line("balance", [(float(s.step), s.balance) for s in scores], COLORS[2], kind="thin"),
    ]
    values = [value for line in lines for _, value in line.points]
    ends = min(0.0, *values) - 0.03, max(1.0, *values) + 0.03
    plot = line_plot(lines, scores[-1].step, "score", ends=ends, marks=marks)
    rows = []
    for one in scores:
        loss, error = record.loss(one.step, chosen)
        less = NOTHING if one.step == chosen else f"{loss:+.3f} ± {error:.3f}"
        numbers = [f"{value:.3f}" for value in (one.likeness, one.agreement, one.balance)]
        rows.append((f"step {one.step}", [*numbers, less]))
    heads = ["", "likeness", "agreement", "balance", f"less than {chosen} by"]
    count = len(record.steps[chosen].agreement)
    note = (
        "Every checkpoint drew the same few prompts from the same noise. Likeness is of the base "
        "prompt's pictures to the training picture, agreement is of the others with their prompts; "
        "both by image encoders, on a scale between the base model (likeness 0, agreement 1) and a "
        "copier that always shows the training picture (likeness 1, agreement 0). Balance is their "
        "harmonic mean. Overfitting begins where a step after the best one agrees with its prompts "
        f"less by more than {ERRORS:g} standard errors over the {count} prompts. {_cost(run)}"
    )
    return (
        f'<h2>Choosing the step</h2><p>{text}</p><p class="note">{note}</p>'
        f'<div class="plots"><div>{plot}</div><div>{table(heads, rows)}</div></div>'
    )


def _cost(run: Run) -> str:
    """Return in a sentence what scoring cost."""
    assert run.scores is not None
    spent = sum(run.scores.seconds.values())
    steps = run.metrics.steps
    if not steps or not steps[-1].seconds:
        return ""
    return (
        f"Scoring took {spent:.0f} seconds, {spent / (spent + steps[-1].seconds):.0%} of the time."
    )
