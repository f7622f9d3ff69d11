"""S by similarities: against numbers worked out by hand, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tlora_cli import UserError
from tlora_cli.evaluation.image_requests import ImageRequest, requests_without
from tlora_cli.evaluation.real_pictures import PairSettings, lacking, read_pairs
from tlora_cli.evaluation.scoring import PromptedImage, Scores
from tlora_cli.evaluation.success import Pairs, Success, choose, measure
from tlora_cli.evaluation.success_report import add_success
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.renderer import draw


class Angles:
    """An encoder whose features lie on a circle: of a picture at its first pixel's red, of a text
    at the number that it is."""

    def __init__(self, reads_text: bool = True) -> None:
        self.reads_text = reads_text

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        return self._at([one.getpixel((0, 0))[0] for one in pictures])  # type: ignore[index]

    def texts(self, texts: Sequence[str]) -> Tensor:
        return self._at([float(text) for text in texts])

    def _at(self, degrees: Sequence[float]) -> Tensor:
        angles = torch.tensor(degrees).double().deg2rad()
        return torch.stack([angles.cos(), angles.sin()], 1).float()


ENCODER: Any = Angles()
BLIND: Any = Angles(reads_text=False)


def at(*degrees: int) -> list[Image.Image]:
    """Return pictures with features at these angles."""
    return [Image.new("RGB", (8, 8), (one, 0, 0)) for one in degrees]


def cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


PHOTOGRAPHS, OTHERS = at(0, 40), at(90, 120)
CAPTIONED = list(zip(at(0, 90), ("10", "80"), strict=True))
PICTURES = at(20, 60, 70)
AGREEING = torch.tensor([0.9, 0.5, 0.8])


def measured(agreeing: Tensor = AGREEING, **pairs: Any) -> Success | None:
    given: dict[str, Any] = {"others": OTHERS, "captioned": CAPTIONED, **pairs}
    return measure(PICTURES, agreeing, ENCODER, ENCODER, Pairs(PHOTOGRAPHS, **given))


# --- numbers --------------------------------------------------------------------------------------


def test_s_is_as_by_hand() -> None:
    """One pair of photographs, at cos 40; with other things at cos 90, 120, 50, 80.

    Likeness is the mean over both photographs: cos 20; (cos 60 + cos 20) / 2 = 0.72;
    (cos 70 + cos 30) / 2 = 0.60. The first two are above 0.70, the first and the last agree.
    """
    found = measured()
    assert found is not None
    assert found.likeness.value == pytest.approx((cos(40) + cos(50)) / 2)
    assert (found.likeness.real, found.likeness.mismatched) == (1, 4)
    assert found.agreement.value == pytest.approx((cos(10) + cos(80)) / 2)
    assert (found.agreement.real, found.agreement.mismatched) == (2, 2)
    means = [cos(20), (cos(60) + cos(20)) / 2, (cos(70) + cos(30)) / 2]
    assert found.alike.tolist() == pytest.approx(means)
    assert found.shares() == pytest.approx({"S": 1 / 3, "S (alike)": 2 / 3, "S (as asked)": 2 / 3})


def test_numbers_of_the_user_take_the_place_of_pairs() -> None:
    found = measured(others=[], captioned=[], likeness=0.7, agreement=0.8)
    assert found is not None
    assert (found.likeness.value, found.likeness.missed) == (0.7, None)
    assert found.shares() == pytest.approx({"S": 1 / 3, "S (alike)": 2 / 3, "S (as asked)": 2 / 3})
    assert found.agreement.value == 0.8, "what is at the threshold counts"


def test_a_picture_that_cannot_be_measured_is_left_out_and_never_0() -> None:
    found = measured(torch.tensor([0.9, math.nan, 0.8]))
    assert found is not None
    assert found.shares() == {"S": 0.5, "S (alike)": 0.5, "S (as asked)": 1.0}
    none = measured(torch.full((3,), math.nan))
    assert none is not None and math.isnan(none.shares()["S"])


@pytest.mark.parametrize(
    "pairs",
    [
        {"others": []},
        {"captioned": []},
        {"captioned": CAPTIONED[:1]},
        {"captioned": [(picture, "10") for picture, _ in CAPTIONED]},
    ],
    ids=["no others", "no captions", "one caption", "all captions the same"],
)
def test_without_pairs_there_is_no_s(pairs: dict[str, Any]) -> None:
    assert measured(**pairs) is None
    assert measured(**pairs, likeness=0.7, agreement=0.8) is not None


def test_likeness_is_left_to_an_encoder_that_learned_without_texts() -> None:
    assert choose({"clip": ENCODER, "dino": BLIND}) == ("dino", "clip")
    assert choose({"clip": ENCODER}) == ("clip", "clip")
    assert choose({"dino": BLIND}) == ("dino", None)


# --- in the results -------------------------------------------------------------------------------


def scored() -> tuple[Scores, list[PromptedImage]]:
    """Return the scores of a picture of the base prompt and three of others."""
    images = [
        PromptedImage(group, "V*", "a.png", one)
        for group, one in zip(("base", "suite", "suite", "suite"), at(0, 20, 60, 70), strict=True)
    ]
    rows: list[Any] = [{"group": one.group} for one in images]
    for row, agreement in zip(rows[1:], AGREEING.tolist(), strict=True):
        row["clip TS (class)"] = agreement
    return Scores({"clip IS": 0.5}, rows), images


def test_s_stands_in_table_rows_and_details() -> None:
    found, images = scored()
    pairs = Pairs(PHOTOGRAPHS, OTHERS, CAPTIONED)
    add_success(found, images, {"clip": ENCODER, "dino": BLIND}, pairs, None)
    assert list(found.summary) == ["S", "S (alike)", "S (as asked)", "clip IS"]
    assert [row.get("S") for row in found.rows] == [None, 1, 0, 0]
    assert found.rows[1]["S likeness"] == pytest.approx(cos(20))
    success = found.details["success"]
    assert (success["pictures"], success["not measured"]) == (3, 0)
    assert success["alike"] == {
        "measure": "dino likeness",
        "threshold": pytest.approx((cos(40) + cos(50)) / 2, abs=1e-6),
        "from": "best balanced accuracy",
        "real pairs": 1,
        "real pairs below": 0,
        "mismatched pairs": 4,
        "mismatched pairs not below": 0,
    }
    assert found.notes[0] == "S: share of 3 pictures that are alike and as asked at once"
    assert found.notes[1] == (
        "alike: dino likeness of at least 0.704, which best separates pairs: 0% of 1 real ones are "
        "below it, 0% of 4 mismatched ones are not"
    )
    given, images = scored()
    pairs = Pairs(PHOTOGRAPHS, likeness=0.7, agreement=0.6)
    add_success(given, images, {"clip": ENCODER}, pairs, None)
    as_asked = given.details["success"]["as asked"]
    assert as_asked == {"measure": "clip agreement", "threshold": 0.6, "from": "given"}
    assert given.notes[2] == "as asked: clip agreement of at least 0.600, as given"


def test_backgrounds_are_painted_over_on_both_sides_of_a_pair() -> None:
    """The mask moves every picture by 10 degrees, so all likenesses are the same; all four are."""
    found, images = scored()
    seen = []

    def mask(picture: Image.Image) -> Image.Image:
        seen.append(picture)
        return at(picture.getpixel((0, 0))[0] + 10)[0]  # type: ignore[index]

    pairs = Pairs(PHOTOGRAPHS, OTHERS, CAPTIONED)
    add_success(found, images, {"clip": ENCODER}, pairs, mask)
    assert found.summary["S"] == pytest.approx(1 / 3)
    assert found.details["success"]["alike"]["measure"] == "clip likeness (masked)"
    assert len(seen) == 3 + 2 + 2, "prompts are about the whole picture"


def test_without_a_number_there_is_a_line_in_its_place() -> None:
    found, images = scored()
    add_success(found, images, {"clip": ENCODER}, Pairs(PHOTOGRAPHS, OTHERS, CAPTIONED[:1]), None)
    assert "S" not in found.summary and found.details == {}
    assert "no threshold can be found from these pairs" in found.hint
    found, images = scored()
    for row in found.rows:
        row["clip TS (class)"] = math.nan
    add_success(found, images, {"clip": ENCODER}, Pairs(PHOTOGRAPHS, OTHERS, CAPTIONED), None)
    assert "S" not in found.summary and not any("S" in row for row in found.rows)
    assert "no picture has a likeness and an agreement" in found.hint


# --- what the user gives --------------------------------------------------------------------------


def test_what_is_needed_is_named() -> None:
    [photo, other] = at(0, 90)
    assert lacking(Pairs([photo]), True, True) == [
        "--same, other photographs of the concept, and --others, photographs of other things of "
        "its class (or --least-likeness)"
    ]
    assert lacking(Pairs([photo, other], at(50)), True, True) == []
    assert lacking(Pairs([photo], likeness=0.5), True, True) == []
    [agreement] = lacking(Pairs([photo], likeness=0.5), True, False)
    assert agreement.startswith("--captioned") and "--least-agreement" in agreement
    assert lacking(Pairs([photo], likeness=0.5, agreement=0.2), True, False) == []
    assert lacking(Pairs([photo], likeness=0.5, captioned=CAPTIONED), True, False) == []
    [reader] = lacking(Pairs([photo], likeness=0.5, agreement=0.2), False, False)
    assert "--metric clip" in reader


def test_the_base_draws_each_prompt_once_with_the_class() -> None:
    asked = [
        ("base", "a photo of a V*", 0),
        ("suite", "a V* at sea", 3),
        ("suite", "a V* at sea", 4),
    ]
    asked += [("suite", "a blue V*", 3), ("free", "a lighthouse", 3)]
    requests = [ImageRequest(*one) for one in asked]
    assert requests_without(requests, "dog") == [
        ImageRequest("suite_without", "a dog at sea", 3),
        ImageRequest("suite_without", "a blue dog", 3),
    ]


def folder_of(folder: Path, *names: str) -> str:
    folder.mkdir()
    for name in names:
        scene = CONCEPTS[name].scenes()[0]
        draw(scene).image.save(folder / f"{name}.png")
    return str(folder)


def test_no_photograph_makes_a_pair_with_itself(tmp_path: Path) -> None:
    training = [draw(CONCEPTS["pip"].scenes()[0]).image]
    same = (folder_of(tmp_path / "same", "pip"), "toy:pip", "toy:pip/2")
    pairs = read_pairs(PairSettings(same, ("toy:momo",)), training, str)
    assert (len(pairs.photographs), len(pairs.others)) == (4, 4)
    with pytest.raises(UserError, match="photographs of the concept are among"):
        read_pairs(PairSettings((), ("toy:pip/1", "toy:momo")), training, str)


def test_captions_are_those_of_the_folder_with_the_class(tmp_path: Path) -> None:
    folder = Path(folder_of(tmp_path / "said", "pip", "momo"))
    settings = PairSettings(captioned=folder)
    with pytest.raises(UserError, match="prompt is not known"):
        read_pairs(settings, [], str)
    (folder / "prompts.json").write_text('{"pip.png": "a sks dog", "momo.png": "a cat"}')
    pairs = read_pairs(settings, [], lambda text: text.replace("sks dog", "dog"))
    assert [text for _, text in pairs.captioned] == ["a cat", "a dog"]
    (folder / "prompts.json").write_text("[")
    with pytest.raises(UserError, match="can't be read"):
        read_pairs(settings, [], str)
    with pytest.raises(UserError, match="there is no file"):
        read_pairs(PairSettings(others=(str(tmp_path / "none"),)), [], str)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no picture is in the folder"):
        read_pairs(PairSettings(same=(str(tmp_path / "empty"),)), [], str)
