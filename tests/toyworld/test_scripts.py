"""What trains the world's models: damage for the judge, the VAE's ends, words told, stops."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "toyworld"))

from architectures import DESIGNS, unet, vae
from bases import base_of
from damage import TRAINED, UNSEEN, softened
from denoising import load_vae
from harness import Plan, Run, is_done
from keep_unfinished import shrunk
from measure_bases import drawings as fresh_drawings
from measure_bases import told_apart
from measure_success import draw_others, kappa
from muon import Muon, orthogonal
from pictures import pictures_of, scene
from put_together import load_put_together, put_together
from refine_decoder import Examples, drawn_again, grown, image_to_image
from release import release
from texts import clip_tokenizer, said
from train_vae import quarters, take_outer_layers
from vae_losses import PatchCritic, center, criticized, edge_error

from tlora_cli.toyworld.captions import caption
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import ATTRIBUTES, draw_scene
from tlora_cli.toyworld.judge import UNREADABLE, Judge
from tlora_cli.toyworld.reading import load_judge, pixels_of, read
from tlora_cli.toyworld.renderer import draw


@pytest.fixture(scope="module")
def drawings() -> Tensor:
    rng = random.Random("damage")
    return pixels_of([draw(draw_scene(rng)).image for _ in range(64)])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# --- the judge -----------------------------------------------------------------------------


def test_the_judge_is_tested_on_damage_that_it_never_saw() -> None:
    assert len(UNSEEN) >= 4
    assert not TRAINED.keys() & UNSEEN.keys()
    assert not set(TRAINED.values()) & set(UNSEEN.values())


@pytest.mark.parametrize("kind", [*TRAINED, *UNSEEN])
def test_damage_changes_pictures_much_and_the_same_each_time(kind: str, drawings: Tensor) -> None:
    make = {**TRAINED, **UNSEEN}[kind]
    damaged = make(drawings, generator())
    assert damaged.shape == drawings.shape
    assert torch.equal(damaged, make(drawings, generator()))
    per_picture = (damaged - drawings).abs().mean((1, 2, 3))
    assert per_picture.min() > 0.5 * (softened(drawings, generator()) - drawings).abs().mean()
    assert per_picture.mean() > 0.08


def test_softened_pictures_can_be_read(drawings: Tensor) -> None:
    before, after = reading_of(drawings), reading_of(softened(drawings, generator()))
    same = [one["class"] == two["class"] for one, two in zip(before, after, strict=True)]
    assert sum(same) >= 62


def reading_of(pixels: Tensor) -> list[dict[str, str]]:
    arrays = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return read([Image.fromarray(one) for one in arrays])


def test_a_judge_says_unreadable_of_every_attribute() -> None:
    judge = Judge().eval()
    assert judge.known["class"][-1] == UNREADABLE
    head = judge.heads["class_head"]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.arange(9.0))
    readings = judge.read(torch.zeros(3, 3, 64, 64))
    assert readings == [dict.fromkeys(ATTRIBUTES, UNREADABLE)] * 3
    with torch.no_grad():
        head.bias[8] = -1
    readings = judge.read(torch.zeros(3, 3, 64, 64))
    assert [one["class"] for one in readings] == ["ghost"] * 3
    assert all(one["eyes"] in ATTRIBUTES["eyes"] for one in readings)


# --- the critic -----------------------------------------------------------------------------------


@pytest.mark.full
def test_a_fresh_critic_tells_blurred_pictures_and_not_drawings(
    drawings: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("measure_bases.LEARNED", 40)
    monkeypatch.setattr("measure_bases.TESTED", 24)
    monkeypatch.setattr("measure_bases.CRITIC_STEPS", 30)
    blurred = TRAINED["blur"](drawings, generator())
    others = fresh_drawings("critic test", 64)
    easy = told_apart(blurred, others)
    assert easy.count == 48
    assert easy.value > 0.85
    assert told_apart(drawings, others).value < 0.75


# --- the VAE --------------------------------------------------------------------------------------


@torch.no_grad()
def test_centering_gives_latents_mean_0_and_spread_1_and_leaves_pictures(drawings: Tensor) -> None:
    torch.manual_seed(0)
    model = vae("sdxl").eval()
    model.quant_conv.bias.add_(torch.arange(8.0))
    before = model.encode(drawings).latent_dist
    picture = model.decode(before.mean).sample
    deviation = before.std / before.mean.std((0, 2, 3))[None, :, None, None]
    center(model, before.mean)
    after = model.encode(drawings).latent_dist
    assert after.mean.shape == (64, 4, 16, 16)
    assert after.mean.mean((0, 2, 3)) == pytest.approx([0] * 4, abs=1e-4)
    assert after.mean.std((0, 2, 3)) == pytest.approx([1] * 4, abs=1e-4)
    assert torch.allclose(after.std, deviation, rtol=1e-3)
    assert torch.allclose(model.decode(after.mean).sample, picture, atol=1e-4)
    assert model.config.scaling_factor == 1


def test_quarters_around_subjects_hold_them() -> None:
    scenes = [scene("seen", number) for number in range(40)]
    pictures = pictures_of(scenes)
    masks = [np.asarray(draw(one).mask) for one in scenes]
    shown = torch.from_numpy(np.stack(masks))[:, None].expand(-1, 3, -1, -1) / 255

    def share(subjects: Tensor | None) -> Tensor:
        cut = quarters(shown, pictures, subjects, generator())
        assert cut.shape == (40, 3, 32, 32)
        return cut.sum((1, 2, 3)) / shown.sum((1, 2, 3))

    around = share(torch.arange(40))
    assert around.min() > 0.5
    assert around.mean() > 0.85
    assert share(None).mean() < 0.6


def test_a_grown_decoder_draws_the_same_at_first(drawings: Tensor, tmp_path: Path) -> None:
    small = vae("sdxl")
    shipped = load_vae(tmp_path, "sdxl")  # it has grown
    small.load_state_dict(shipped.state_dict(), strict=False)
    larger = grown(small)
    assert larger.config.layers_per_block == 2
    assert larger.decoder.mid_block.attentions[0] is not None
    with torch.no_grad():
        latents = small.encode(drawings[:4]).latent_dist.mean
        torch.testing.assert_close(
            larger.encode(drawings[:4]).latent_dist.mean, latents, rtol=0, atol=1e-4
        )
        torch.testing.assert_close(
            larger.decode(latents).sample, small.decode(latents).sample, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("base", ["toy-sdxl", "toy-flux"])
def test_drawings_drawn_again_from_little_noise_are_alike(base: str, tmp_path: Path) -> None:
    pictures = pictures_of([scene("seen", number) for number in range(3)])
    stock, facts = base_of(tmp_path, base)  # nothing is in the work folder
    assert "training" in facts
    latents = drawn_again(image_to_image(stock), pictures, range(3), strength=0.15, seed=0)
    with torch.no_grad():
        back = stock.vae.decode(latents).sample
    assert (back - pictures.tensor(slice(0, 3))).abs().mean() < 0.15
    assert (back - pictures.tensor(slice(0, 3)).roll(1, 0)).abs().mean() > 0.3


def test_examples_of_a_decoder_belong_together(tmp_path: Path) -> None:
    pictures = pictures_of([scene("seen", number) for number in range(60)])
    encoder = load_vae(tmp_path, "sdxl")  # the shipped one
    with torch.no_grad():
        latents = encoder.encode(pictures.tensor(slice(0, 60))).latent_dist.mean
    # Ten drawings of each strength, which the base has left as they are.
    examples = Examples(pictures, latents.view(6, 10, 4, 16, 16), encoder)
    whole = examples.batch(8, generator(), whole=True)
    assert whole.drawn.tolist() == [False, True, True, True] * 2
    assert whole.alike.flatten()[[0, 3, 4, 7]].tolist() == [1, 0, 1, 0]
    assert all(0.1 < one < 0.7 for one in whole.alike.flatten()[[1, 2, 5, 6]].tolist())
    for batch in (whole, examples.batch(16, generator(), whole=False)):
        with torch.no_grad():
            back = encoder.decode(batch.latents).sample
        errors = (back - batch.pixels).abs().mean((1, 2, 3))
        others = (back - batch.pixels.roll(1, 0)).abs().mean((1, 2, 3))
        assert (errors < others).float().mean() > 0.9


def test_a_new_vae_begins_with_what_fits_of_a_grown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = grown(vae("flux")), vae("sdxl")
    monkeypatch.setattr("train_vae.AutoencoderKL.from_pretrained", lambda *folder: old)
    take_outer_layers(new)
    taken, given = new.state_dict(), old.state_dict()
    same = {name for name in taken if torch.equal(taken[name], given[name])}
    assert {"encoder.conv_in.weight", "decoder.conv_out.weight"} <= same
    assert "decoder.conv_in.weight" not in same, "it has other channels"


def test_edges_count_where_errors_change() -> None:
    assert edge_error(torch.full((1, 3, 8, 8), 0.5)) == 0
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    assert edge_error(step) == pytest.approx(1 / 3)


def test_the_makers_loss_leaves_the_critic_alone(drawings: Tensor) -> None:
    torch.manual_seed(0)
    critic = PatchCritic()
    made = (drawings[:4] * 0.5).requires_grad_()
    fooled, own = criticized(critic, made, drawings[:4])
    fooled.backward(retain_graph=True)
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert all(part.grad is None for part in critic.parameters())
    made.grad = None
    own.backward()
    assert made.grad is None
    assert all(part.grad is not None for part in critic.parameters())
    assert critic(drawings[:4]).shape == (4, 1, 16, 16)


# --- the UNet, the texts --------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
def test_most_parameters_are_in_transformer_blocks_and_none_at_the_top(design: str) -> None:
    model = unet(DESIGNS[design])
    sizes = {name: part.numel() for name, part in model.named_parameters()}
    inside = sum(size for name, size in sizes.items() if "transformer_blocks" in name)
    assert inside > 0.5 * sum(sizes.values())
    assert len(model.down_blocks) == 3
    assert not any(
        name.startswith(("down_blocks.0.attentions", "up_blocks.2.attentions")) for name in sizes
    )


def test_what_a_caption_keeps_to_itself_is_told_as_none() -> None:
    rng = random.Random(0)
    told = {name: 0 for name in ("marking", "feature")}
    for _ in range(500):
        values = draw_scene(rng).values
        text = caption(values, rng)
        found = said(values, text)
        for name in told:
            shown = values[name] != "none" and values[name] in text
            assert found[name] == (values[name] if shown else "none")
            told[name] += shown
        assert {n: found[n] for n in values if n not in told} == {
            n: values[n] for n in values if n not in told
        }
    assert min(told.values()) > 100


def test_the_letters_of_a_trained_tokenizer_are_numbered_by_the_alphabet() -> None:
    one, two = clip_tokenizer().get_vocab(), clip_tokenizer("!").get_vocab()
    assert one == two  # the trainer alone numbers them another way each time
    letters = [token for token in sorted(one) if len(token.removesuffix("</w>")) == 1]
    assert len(letters) > 200
    assert [one[letter] for letter in letters] == sorted(one[letter] for letter in letters)


# --- the loop -------------------------------------------------------------------------------------


def test_muon_makes_updates_orthogonal() -> None:
    torch.manual_seed(0)
    for shape in ((6, 20), (20, 6)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("every", [1, 3])
def test_muon_is_torchs_in_single_precision(every: int) -> None:
    """Gathered gradients count as one of their mean, at as many times the rate."""
    torch.manual_seed(0)
    start, gradients = torch.randn(8, 16), torch.randn(4, 8, 16)
    own, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([own], lr=0.01, weight_decay=0.1, every=every)
    reference = torch.optim.Muon(
        [other], lr=0.01 * every, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for gradient in gradients:
        for _ in range(every):
            own.grad = gradient.clone()
            mine.step()
        other.grad = gradient.clone()
        reference.step()
    assert not torch.allclose(own, start, atol=0.01 * every)
    assert torch.allclose(own, other, atol=4e-3 * every), (own - other).abs().max()


def test_a_run_stops_after_its_minutes_and_keeps_two_means(tmp_path: Path) -> None:
    torch.manual_seed(0)

    def fit(steps: int, minutes: float) -> Run:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        plan = Plan("line", steps, lr=0.1, average=0.5, slow=0.99, minutes=minutes, warmup=1)
        run = Run(plan, model, tmp_path, seed=0)

        def loss(source: torch.Generator) -> Tensor:
            x = torch.randn(8, 3, generator=source)
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        run.train(loss)
        return run

    stopped = fit(10**9, minutes=0.01)
    assert 1 <= stopped.step < 10**9
    assert stopped.seconds >= 0.6
    again = fit(stopped.step + 5, minutes=float("inf"))
    assert again.step == stopped.step + 5, "it goes on from the checkpoint"
    assert is_done(tmp_path, "line", again.step)
    assert not is_done(tmp_path, "line", again.step + 1)
    assert not is_done(tmp_path, "curve", 1)
    file = tmp_path / "line.pt"
    state = torch.load(file, weights_only=True)
    torch.save(shrunk(state, ["weight", "bias"]), file)
    gone_on = fit(again.step, minutes=float("inf"))
    assert gone_on.step == again.step
    assert gone_on.seconds == pytest.approx(again.seconds)
    for part, mean in zip(gone_on.model.parameters(), again.averages, strict=True):
        assert torch.allclose(part, mean, rtol=1e-3, atol=1e-4), "a kept state is the mean"
    current = next(iter(again.model.parameters())).clone()
    with again.averaged():
        fast = next(iter(again.model.parameters())).clone()
    with again.averaged(slow=True):
        slow = next(iter(again.model.parameters())).clone()
    assert not torch.equal(fast, slow)
    assert torch.equal(next(iter(again.model.parameters())), current)


def test_agreement_beyond_chance_is_as_by_hand() -> None:
    """Three of four are the same; yes to a half and to a quarter agree on half by chance."""
    ours, theirs = np.array([True, True, False, False]), np.array([True, False, False, False])
    assert kappa(ours, theirs) == pytest.approx((0.75 - 0.5) / (1 - 0.5))
    assert kappa(ours, ours) == 1
    assert np.isnan(kappa(ours | True, ours | True))


def test_other_things_of_a_class_are_not_the_concept(tmp_path: Path) -> None:
    pip = CONCEPTS["pip"]
    folder = Path(draw_others(pip, tmp_path / "others", look_alikes=True))
    readings = read([Image.open(file) for file in sorted(folder.glob("*.png"))])
    assert len(readings) == 20
    assert {(one["class"], one["color"]) for one in readings} == {(pip.class_name, pip.color)}
    assert all((one["marking"], one["feature"]) != (pip.marking, pip.feature) for one in readings)


def test_a_released_model_does_not_say_where_its_parts_were_loaded_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("release.BUNDLE", SimpleNamespace(models=tmp_path))

    def write(folder: Path) -> None:
        part = vae("sdxl")
        part.save_pretrained(folder / "here")
        again = type(part).from_pretrained(folder / "here")
        again.save_pretrained(folder / "vae")
        assert "_name_or_path" in (folder / "vae" / "config.json").read_text()
        for name in ("model_index.json", "tokenizer_config.json"):
            (folder / name).write_text(json.dumps({"_name_or_path": "/home/me", "is_local": True}))

    folder = release("thing", write, "A thing.", {"parts": 1})
    assert "/home/me" not in "".join(one.read_text() for one in folder.glob("*.json"))
    assert json.loads((folder / "tokenizer_config.json").read_text()) == {}
    for file in folder.rglob("config.json"):
        assert "_name_or_path" not in file.read_text()
        assert "latent_channels" in file.read_text()


def test_pictures_put_together_show_what_they_say(tmp_path: Path) -> None:
    """By the judge, on pictures that it never saw; a mirrored left is a right."""
    pictures = load_put_together(tmp_path, "for the tests", 64)
    readings = load_judge().read(pictures.tensor(slice(None)))
    for name in ("class", "color", "background", "position", "marking", "feature"):
        right = [one[name] == pictures.named(i)[name] for i, one in enumerate(readings)]
        assert sum(right) >= 62, name
    again = load_put_together(tmp_path, "for the tests", 64)
    assert np.array_equal(again.pixels, pictures.pixels)
    one, other = put_together("a"), put_together("b")
    assert one.scene == put_together("a").scene != other.scene
    assert one.scene["accessory"] == "none"
