"""A concept that stands behind the encoder's last token: refused before hours are spent.

Before, such a run trained on a prompt without the concept, and so did sampling, in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import draw_picture, run, tlora, write_recipe

from tlora_cli.foundation.errors import UserError

LONG = "a big red house with a garden and trees and a river " * 9
PLACES: dict[str, dict[str, Any]] = {
    "the prompt": {"concept__prompt": f"{LONG} V*"},
    "one of several": {"concept__prompts": ["a V*", f"{LONG} V*"]},
    "a preview": {"train__preview": {"every": 2, "prompts": [f"{LONG} V*"]}},
    "a long name": {"concept__placeholder": "sks" * 90},
}


@pytest.mark.parametrize("changes", PLACES.values(), ids=PLACES)
def test_a_concept_that_is_cut_off_is_refused(
    changes: dict[str, Any], tiny_sdxl: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="stands behind the 75 tokens that SDXL reads"):
        run(tiny_sdxl, tmp_path, **changes)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_caption_too(tiny_sdxl: Path, tmp_path: Path) -> None:
    draw_picture(tmp_path / "photo.png")
    (tmp_path / "photo.txt").write_text(f"{LONG} with a V*")
    with pytest.raises(UserError, match="stands behind the 75 tokens"):
        run(tiny_sdxl, tmp_path, concept__captions=True)


TOLD: dict[str, dict[str, Any]] = {
    "the prompt": {"concept__prompt": f"a V*, {LONG}"},
    "class pictures": {"concept__prior": {"count": 1, "prompt": f"a {{class}}, {LONG}"}},
    "the negative prompt": {
        "sampling__negative_prompt": LONG,
        "train__preview": {"every": 2, "prompts": ["a V*"]},
    },
}


@pytest.mark.parametrize("changes", TOLD.values(), ids=TOLD)
def test_other_words_that_are_cut_off_are_told(
    changes: dict[str, Any], tiny_sdxl: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="text_encoder reads 75; it does not read: "):
        run(tiny_sdxl, tmp_path, train__steps=2, **changes)


@pytest.mark.full
def test_validate_says_it_before(tiny_sdxl: Path, tmp_path: Path) -> None:
    file = write_recipe(tiny_sdxl, tmp_path, concept__prompt=f"{LONG} V*")
    done = tlora("validate", file, cwd=tmp_path)
    assert done.returncode == 2 and "'sks dog' stands behind the 75 tokens" in done.stdout
    file = write_recipe(tiny_sdxl, tmp_path, concept__prompt=f"V*, {LONG}")
    done = tlora("validate", file, cwd=tmp_path)
    assert done.returncode == 0 and "it does not read: " in done.stdout


def test_sampling_stops_and_anyway_goes_on(tiny_sdxl: Path, tmp_path: Path) -> None:
    trained = run(tiny_sdxl, tmp_path, train__steps=1).adapter
    draw = ("sample", "--adapter", trained, "--steps", 1, "--device", "cpu", "--prompt")
    done = tlora(*draw, f"{LONG} V*", cwd=tmp_path)
    assert done.returncode == 2 and "'sks dog' stands behind the 75 tokens" in done.stderr
    done = tlora(*draw, f"{LONG} V*", "--anyway", cwd=tmp_path)
    assert done.returncode == 0 and "warning: the prompt 'a big red house" in done.stderr


def test_a_run_that_began_so_can_be_resumed(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"concept__prompt": f"{LONG} V*", "train__steps": 2}
    with monkeypatch.context() as before:
        before.setattr("tlora_cli.training.encoding.check_lengths", lambda *a, **k: None)
        run(tiny_sdxl, tmp_path, **changes)
    changes["train__steps"] = 4
    with pytest.warns(UserWarning, match="it does not read"):
        assert run(tiny_sdxl, tmp_path, resume=True, **changes).step == 4
