"""`tlora evaluate`: draw what is missing, score, write the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tlora_cli.evaluation.encoders import Encoder, load_encoder
from tlora_cli.evaluation.generated_images import (
    PlannedImage,
    claim_folder,
    digest,
    draw_missing,
    given_pictures,
    missing,
    plan_images,
)
from tlora_cli.evaluation.image_requests import Counts, requests_without
from tlora_cli.evaluation.judging import judged_evaluation, requests_of
from tlora_cli.evaluation.learned import keep_reference, learned
from tlora_cli.evaluation.masking import load_segmenter, masked
from tlora_cli.evaluation.real_pictures import (
    PairSettings,
    as_trained,
    lacking,
    read_pairs,
    training_pictures,
)
from tlora_cli.evaluation.result_files import write_tables
from tlora_cli.evaluation.scoring import Mask, PromptedImage, Scores, score
from tlora_cli.evaluation.success import Pairs
from tlora_cli.evaluation.success_report import add_success
from tlora_cli.evaluation.suites import BASE
from tlora_cli.formats.opening import locate
from tlora_cli.foundation.bundled import Bundle, bundle_of_base, judged_scores
from tlora_cli.foundation.devices import choose_device, memory_explained
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import locked
from tlora_cli.foundation.prompts import concept_words
from tlora_cli.photos.masks.segmenter import CHECKPOINT, Segmenter
from tlora_cli.sampling.session import Request, SamplingSession

BATCH = 4
"""Pictures drawn together, where neither the user nor a bundle says how many."""

Progress = Callable[[int, int], None]
"""(pictures drawn, pictures to draw)."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that is asked for, and its settings.

    Attributes:
        output: folder of pictures and results.
        prompts: of the suite, with V* for the concept; None for what suits the concept.
        metrics: encoder name -> checkpoint, None for its default.
        images: the real pictures; None for those the adapter was trained on.
        seed: of the first picture of each prompt.
        count: pictures of each prompt of the suite (5 in the paper). On the built-in world every
            picture has its own prompt, and there are 10 of them for each of this count.
        base_count: pictures of the base prompt (15 in the paper).
        free_count: pictures of each concept-free prompt, with and without the adapter; 0 for none.
            On the built-in world, there are 8 such prompts for each of this count.
        batch_size: pictures drawn together; None for `BATCH`, or what suits a bundle's base.
        device: auto, cpu or cuda.
        mask: checkpoint that finds the subject; None for no masks; "auto" for CLIPSeg, but none
            on the built-in world.
        pairs: what the thresholds of S come from.
    """

    output: Path
    prompts: Sequence[str] | None
    metrics: dict[str, str | None]
    images: str | list[str] | None = None
    seed: int = 0
    count: int = 5
    base_count: int = 15
    free_count: int = 2
    batch_size: int | None = None
    device: str = "auto"
    mask: str | None = "auto"
    pairs: PairSettings = field(default_factory=PairSettings)


def evaluate_adapter(
    adapter: Path, job: Evaluation, notify: Callable[[str], None], progress: Progress
) -> Scores:
    """Draw an adapter's pictures, as far as they are missing, and score them.

    A run that was stopped goes on where it was: pictures that are there are not drawn again.

    Args:
        adapter: its file.
        job: what to evaluate.
        notify: told what is loaded.
        progress: told how many pictures are there.

    Raises:
        UserError: for an adapter, base, encoder or folder that doesn't fit.
    """
    request = Request(adapter, (), job.output, device=job.device)
    with memory_explained("lower --batch-size"):
        session = SamplingSession(request, notify)
        if session.concept is None:
            raise UserError(
                "the adapter does not say what V* stands for",
                where=str(adapter),
                do="convert it with `tlora convert --placeholder sks --class dog` first",
            )
        info = session.info
        bundle = bundle_of_base(session.base.model)
        counts = Counts(job.count, job.base_count, job.free_count, job.seed)
        judged = judged_evaluation(bundle, info.recipe, counts) if job.prompts is None else None
        encoders, segmenter = _load(job, bundle)
        training = training_pictures(job.images or info.recipe.get("concept", {}).get("images"))
        words, concept, class_name = session.concept, info.placeholder or "", info.class_name or ""
        pairs = read_pairs(job.pairs, training, lambda text: _with_class(text, words, class_name))
        need = _needed(pairs, encoders, draws=bool(class_name))
        requests = requests_of(judged, job.prompts, class_name, counts)
        # They don't belong to the stamp: S can be asked for later, of pictures that are there.
        drawn = not (need or pairs.captioned or pairs.agreement is not None)
        without = requests_without(requests, class_name) if drawn else []
        origin = {
            "adapter": digest(locate(adapter)),
            "base": session.base.model,
            "settings": asdict(session.settings),
            "pictures": [[one.group, one.prompt, one.seed] for one in requests],
        }
        claim_folder(job.output, origin)
        with locked(job.output):
            planned = plan_images(job.output / "pictures", [*requests, *without], words)
            at_once = job.batch_size or (bundle.batch_size if bundle else BATCH)
            _draw(session, planned, at_once, progress)
            plain = planned[len(requests) :]
            images = [
                PromptedImage(one.group, one.prompt, _name(one, job.output), one.open())
                for one in planned[: len(requests)]
            ]
            mask = _mask(segmenter, class_name)
            found = score(images, training, encoders, concept, class_name, mask)
            if not need:
                if plain:
                    pairs = replace(pairs, captioned=[(one.open(), one.text) for one in plain])
                add_success(found, images, encoders, pairs, mask)
            elif job.pairs.given or judged is None:
                found.hint = need
            if judged is not None:
                _add(found, *judged.judge([one.picture for one in images]))
            kept = keep_reference(job.output, training)
            said = learned(kept, class_name, info.method, info.recipe.get("concept", {}))
            write_tables(job.output, found, {"metrics": job.metrics, "learned": said, **origin})
    return found


def evaluate_pictures(
    folder: Path,
    prompts_of: Path | None,
    class_name: str,
    placeholder: str,
    job: Evaluation,
) -> Scores:
    """Score the pictures of a folder, whatever has made them.

    Args:
        folder: with PNG files.
        prompts_of: JSON of file name -> prompt; tlora's own pictures know theirs.
        class_name: of the concept.
        placeholder: the rare word in the prompts.
        job: `prompts`, `seed` and the counts do not matter.

    Raises:
        UserError: for pictures, prompts or encoders that can't be had.
    """
    if job.images is None:
        raise UserError("no real pictures were given", where="--images", do="name them")
    training = training_pictures(job.images)
    words = concept_words(placeholder, class_name)
    pairs = read_pairs(job.pairs, training, lambda text: _with_class(text, words, class_name))
    images = []
    for file, said in given_pictures(folder, prompts_of):
        prompt = said.replace(words, "V*")
        group = "base" if prompt in (BASE, BASE.replace(" a V*", " V*")) else "suite"
        if "V*" not in prompt:
            group = "free"
        images.append(PromptedImage(group, prompt, file.name, as_trained(file)))
    encoders, segmenter = _load(job, None)
    origin = {
        "folder": str(folder.resolve()),
        "pictures": [[one.group, one.prompt, one.name] for one in images],
    }
    claim_folder(job.output, origin)
    with locked(job.output):
        mask = _mask(segmenter, class_name)
        found = score(images, training, encoders, placeholder, class_name, mask)
        if need := _needed(pairs, encoders, draws=False):
            found.hint = need
        else:
            add_success(found, images, encoders, pairs, mask)
        about = learned(keep_reference(job.output, training), class_name, None, {})
        write_tables(job.output, found, {"metrics": job.metrics, "learned": about, **origin})
    return found


def _load(job: Evaluation, bundle: Bundle | None) -> tuple[dict[str, Encoder], Segmenter | None]:
    """Return what looks at the pictures; a bundle brings its own encoders, and needs no masks."""
    device = choose_device(job.device, "fp32", None)
    encoders = {
        name: load_encoder(name, checkpoint, device, bundle)
        for name, checkpoint in job.metrics.items()
    }
    checkpoint = job.mask
    if checkpoint == "auto":
        checkpoint = None if bundle else CHECKPOINT
    return encoders, load_segmenter(checkpoint, device) if checkpoint else None


def _needed(pairs: Pairs, encoders: Mapping[str, Encoder], draws: bool) -> str:
    """Return a line on what S needs; empty if all is there."""
    need = lacking(pairs, any(one.reads_text for one in encoders.values()), draws)
    if not need:
        return ""
    return "S, the share of pictures that are alike and as asked at once, needs " + "; ".join(need)


def _with_class(text: str, words: str, class_name: str) -> str:
    """Return a prompt with the class where it names the concept."""
    return text.replace(words, "V*").replace("V*", class_name)


def _mask(segmenter: Segmenter | None, word: str) -> Mask | None:
    return None if segmenter is None else lambda picture: masked(segmenter, picture, word)


def _add(found: Scores, summary: dict[str, float], rows: Sequence[dict[str, float]]) -> None:
    """Put the judge's scores first: they count, the others guess."""
    found.summary = {**summary, **found.summary}
    first = next(iter(summary))
    if first in (known := judged_scores()):
        found.notes.insert(0, f"{first}: {known[first].about}")
    for row, more in zip(found.rows, rows, strict=True):
        row.update(more)


def _draw(
    session: SamplingSession, planned: Sequence[PlannedImage], batch_size: int, progress: Progress
) -> None:
    total = len(planned)
    drawn = total - len(missing(planned))
    progress(drawn, total)

    def one_more(image: PlannedImage) -> None:
        nonlocal drawn
        drawn += 1
        progress(drawn, total)

    draw_missing(session, planned, batch_size, one_more)


def _name(image: PlannedImage, folder: Path) -> str:
    return image.file.relative_to(folder).as_posix()
