"""`pictures.csv` as it is, damaged in each way, or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_folders import evaluation

from tlora_cli.cli.app import main
from tlora_cli.evaluation.pictures_table import read_pictures_table
from tlora_cli.foundation.errors import UserError

WHOLE = "group,prompt,file,clip T\nsuite,a V*,pictures/0.png,0.5\n"
DAMAGED = {
    "a row that is cut off": WHOLE + "suite,a V*",
    "a row that goes on": WHOLE + "suite,a V*,pictures/1.png,0.5,more\n",
    "no column of files": "group,prompt\nsuite,a V*\n",
    "no text": b"\xff\xfe\x00",
    "a field without end": WHOLE + '"' + "x" * 200_000,
}


def test_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "pictures.csv").write_text(WHOLE)
    row = {"group": "suite", "prompt": "a V*", "file": "pictures/0.png", "clip T": "0.5"}
    assert read_pictures_table(tmp_path) == [row]


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_one_is_told(content: str | bytes, tmp_path: Path) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "pictures.csv").write_bytes(data)
    with pytest.raises(UserError, match=r"pictures\.csv can't be read"):
        read_pictures_table(tmp_path)


def test_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_pictures_table(tmp_path)


@pytest.mark.parametrize("reference", [None, 3, "photo.png", {"a": 1}])
def test_a_study_of_an_evaluation_whose_photographs_are_no_list(
    reference: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = evaluation(tmp_path, "tlora")
    results = json.loads((folder / "results.json").read_text())
    results["learned"] = {**results.get("learned", {}), "reference": reference}
    (folder / "results.json").write_text(json.dumps(results))
    words = ["study", "new", f"tlora={folder}", f"lora={evaluation(tmp_path, 'lora')}"]
    monkeypatch.setattr("sys.argv", ["tlora", *words, "--output", str(tmp_path / "study")])
    assert main() == 2
    said = capsys.readouterr().err
    assert "is not known" in said and "internal error" not in said
