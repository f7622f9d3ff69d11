"""An analysis as a folder: a page, tables, and plots."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, write_text
from tlora_cli.tools.analyze.page import page
from tlora_cli.tools.analyze.plots import plot_analyses
from tlora_cli.tools.analyze.spectra_of_file import Analysis, table


def write_analysis(analyses: list[Analysis], folder: Path) -> list[Path]:
    """Write index.html, ranks.csv, spectra.json and the plots into a new folder; return the files.

    Raises:
        UserError: if the folder exists.
    """
    if folder.exists():
        raise UserError(
            f"{folder} exists already and is left as it is",
            where="--output",
            do="name a new folder, or remove this one",
        )
    rows = table(analyses)
    with folder_atomically(folder) as part:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(part / "ranks.csv", text.getvalue())
        values = [
            {**row, "singular_values": [float(f"{v:.6g}") for v in spectrum.values]}
            for row, spectrum in zip(rows, (s for a in analyses for s in a.spectra), strict=True)
        ]
        write_text(part / "spectra.json", json.dumps(values, indent=1) + "\n")
        plot_analyses(analyses, part)
        write_text(part / "index.html", page(analyses, part))
        names = sorted(path.name for path in part.iterdir())
    return [folder / name for name in names]
