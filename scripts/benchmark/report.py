"""Results as JSON and as Markdown tables."""

from __future__ import annotations

from typing import Any

Spread = dict[str, float]


def markdown(results: dict[str, Any]) -> str:
    """Return the tables."""
    about = results["about"]
    lines = [
        f"# {about['base']} on {about['device']}",
        "",
        f"{about['date']}, {', '.join(f'{k} {v}' for k, v in about['versions'].items())}, "
        f"{about['threads']} threads. `{about['command']}`",
        "",
    ]
    if "start" in results:
        lines += _start(results["start"])
    if results.get("cases"):
        lines += _cases(results)
    if results.get("cold"):
        lines += _cold(results["cold"])
    return "\n".join(lines)


def _start(start: dict[str, Any]) -> list[str]:
    return [
        f"Start of tlora, rank {start['rank']}, {start['layers']} layers: "
        f"{start['seconds']:.1f} s ({start['cpu']:.1f} s of processor time). Full decompositions: "
        f"{start['full_seconds']:.0f} s ({start['full_cpu']:.0f} s), "
        f"{start['times_faster']:.0f} times as long.",
        "",
    ]


def _cases(results: dict[str, Any]) -> list[str]:
    about = results["about"]
    lines = [
        f"Rank {about['rank']}, latents {about['side']} x {about['side']}, {about['dtype']}, "
        f"batch 1. Medians of up to {about['rounds']} interleaved rounds of {about['steps']} "
        "steps, quartiles in brackets; ratios are those of each round to the bare denoiser, `cpu` "
        f"those of the processor's time. The floor is {about['floor_flops'] / 1e12:.3g} TFLOP at "
        f"the {about['flops_per_s'] / 1e12:.3g} TFLOP/s of a large matrix product.",
        "",
        "| method | mode | first step s | step ms | ratio | cpu | of floor | sampling ms | ratio "
        "| cpu | operations | FLOPs | GB | loss differs |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in results["cases"]:
        cells = [
            case["method"],
            case["mode"],
            f"{case['first_s']:.2f}",
            _milliseconds(case["step"]),
            _ratio(case.get("step_ratio")),
            _ratio(case.get("step_cpu_ratio")),
            f"{case['floor_share']:.0%}",
            _milliseconds(case["sample"]),
            _ratio(case.get("sample_ratio")),
            _ratio(case.get("sample_cpu_ratio")),
            _optional(case.get("operations"), "{:,.0f}"),
            _optional(case.get("flops_to_floor"), "{:.3f}"),
            _optional(case.get("peak_gb"), "{:.2f}"),
            _optional(case.get("loss_differs"), "{:.0e}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _cold(cold: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "Cold, from the command to the saved file:",
        "",
        "| method | steps | s | in steps s | cpu s | GB |",
        "|---|---|---|---|---|---|",
    ]
    for method, run in cold.items():
        lines.append(
            f"| {method} | {run['steps']} | {run['seconds']:.1f} | {run['steps_s']:.1f} "
            f"| {run['cpu']:.1f} | {run['memory_gb']:.2f} |"
        )
    return [*lines, ""]


def _milliseconds(spread: Spread) -> str:
    return f"{1e3 * spread['median']:.1f} ({1e3 * spread['low']:.1f}-{1e3 * spread['high']:.1f})"


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread['median']:.2f} ({spread['low']:.2f}-{spread['high']:.2f})"


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
