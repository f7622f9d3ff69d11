"""Findings of a look ahead, as commands say them."""

from __future__ import annotations

from collections.abc import Iterable

from tlora_cli.cli.reporter import reporter
from tlora_cli.tools.preflight.findings import Finding, finding_data, lines


def tell_findings(findings: Iterable[Finding], *, err: bool = False) -> None:
    """Say findings as they come: those that are ok only where more than the least is said.

    Args:
        findings: what was found.
        err: whether people find them on standard error, as what goes before a run.
    """
    for finding in findings:
        if finding.level == "ok" and not reporter.wordy:
            continue
        if not reporter.as_json:
            for line in lines([finding]):
                reporter.print(line, err=err)
        else:
            reporter.result("finding", **finding_data(finding))
