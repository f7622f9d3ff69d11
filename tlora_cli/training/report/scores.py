"""The section of a report that shows how checkpoints were scored, and which one was kept."""

from __future__ import annotations

from tlora_cli.foundation.pages.axes import COLORS
from tlora_cli.foundation.pages.templates import NOTHING, part
from tlora_cli.training.checkpoint_scores import ERRORS, best, overfitting
from tlora_cli.training.report.curves import says
from tlora_cli.training.report.drawing import Line, Mark, line_plot
from tlora_cli.training.report.reading import Run


def scores_section(run: Run) -> str:
    """Return likeness and agreement over the steps, the best step, and where overfitting begins.

    It is empty if no checkpoint was scored (`train.select`).
    """
    record = run.scores
    if record is None or not record.steps:
        return ""
    scores, begun = record.scores(), overfitting(record)
    chosen = best(scores).step
    kept = run.state == "finished" and run.recipe.train.select == "auto"
    marks = [Mark(chosen, "kept" if kept else "best so far")]
    if begun is not None:
        marks.append(Mark(begun, "overfitting"))
    lines = [
        Line("likeness", [(float(s.step), s.likeness) for s in scores], COLORS[0]),
        Line("agreement with prompts", [(float(s.step), s.agreement) for s in scores], COLORS[1]),
        Line("balance", [(float(s.step), s.balance) for s in scores], COLORS[2], kind="thin"),
    ]
    values = [value for line in lines for _, value in line.points]
    ends = min(0.0, *values) - 0.03, max(1.0, *values) + 0.03
    plot = ""
    if says(scores):
        plot = line_plot(lines, scores[-1].step, "score", ends=ends, marks=marks)
    rows = []
    for one in scores:
        loss, error = record.loss(one.step, chosen)
        less = NOTHING if one.step == chosen else f"{loss:+.3f} ± {error:.3f}"
        numbers = [f"{value:.3f}" for value in (one.likeness, one.agreement, one.balance)]
        rows.append((f"step {one.step}", [*numbers, less]))
    spent, steps = sum(record.seconds.values()), run.metrics.steps
    trained = steps[-1].seconds if steps else None
    return part(
        "training/report/sections.html.jinja",
        "scores",
        chosen=chosen,
        kept=kept,
        begun=begun,
        plot=plot,
        rows=rows,
        count=len(record.steps[chosen].agreement),
        errors=ERRORS,
        spent=spent,
        share=spent / (spent + trained) if trained else None,
    )
