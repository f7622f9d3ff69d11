"""All that is in the studio, and what the page does with it: drafts, runs, drawings, exports."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import is_locked, write_text
from tlora_cli.recipe.named import NAMED
from tlora_cli.studio import processes
from tlora_cli.studio.drafts import Draft, changing, copy_draft, draft_names, find_draft
from tlora_cli.studio.exports import output_of
from tlora_cli.studio.jobs import Job, Jobs
from tlora_cli.studio.progress import progress
from tlora_cli.studio.showing import SAMPLES, line, shown
from tlora_cli.studio.values import CARDS, one_of, steps, strength, text, whole, whole_numbers
from tlora_cli.training.run_folder import RunFolder

MOST_PICTURES = 32
"""Pictures that are drawn at once."""


class Works:
    """The studio's contents.

    Args:
        jobs: what computes.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.machine: dict[str, Any] = {}

    def look_at_machine(self) -> None:
        """Begin to look at what this machine has."""
        self.jobs.submit("machine", "", {}, self.machine.update)

    # --- what there is ------------------------------------------------------------------------

    def _folders(self) -> dict[str, Path]:
        found = {name: find_draft(name) for name in draft_names()}
        return processes.works_of({name: one.run for name, one in found.items() if one})

    def folder(self, name: str) -> Path:
        """Return the run folder of a work.

        Raises:
            UserError: if there is none of that name.
        """
        works = self._folders()
        if name not in works:
            raise UserError(f"there is nothing named {name!r} here", do="load the page again")
        return works[name]

    def state(self, name: str) -> dict[str, Any]:
        """Return all that the page shows, as plain data.

        Args:
            name: of the work that is looked at; empty for none.
        """
        works = self._folders()
        current = self.jobs.current
        return {
            "machine": self.machine,
            "recipes": list(NAMED),
            "works": [line(one, folder) for one, folder in works.items()],
            "job": current.told() if current else None,
            "shown": shown(name, works[name], self.jobs) if name in works else None,
        }

    # --- a photo and what is said of it -------------------------------------------------------

    def change(self, name: str, values: dict[str, Any]) -> None:
        """Take what was said of a photo: square, class, base, card, recipe, steps.

        Raises:
            UserError: if a value is none that can be.
        """
        with changing(name) as draft:
            self._require_unbegun(draft)
            before = (draft.class_name, draft.base, draft.recipe)
            for key in ("class_name", "base"):
                if key in values:
                    setattr(draft, key, text(values[key], key))
            if "card" in values:
                draft.card = one_of(values["card"], ("", *CARDS), "card")
            if "recipe" in values:
                draft.recipe = one_of(values["recipe"], NAMED, "recipe")
            if "steps" in values:
                draft.steps = steps(values["steps"])
            if "judged" in values:
                draft.judged = values["judged"] is True
            if "crop" in values:
                draft.set_crop(*whole_numbers(values["crop"], 3))
            if (draft.class_name, draft.base, draft.recipe) != before and not draft.painted:
                draft.forget_mask()

    def again(self, name: str) -> str:
        """Take a photo again for another run, and return the new name."""
        with changing(name) as draft:
            return copy_draft(draft).name

    def find_mask(self, name: str) -> Job:
        """Begin to find the subject; a mask that was painted is dropped."""
        with changing(name) as draft:
            self._require_unbegun(draft)
            wishes = _wishes(draft)
            asked = (draft.crop, draft.class_name, draft.base)

        def take(found: dict[str, Any]) -> None:
            with changing(name) as now:
                if asked == (now.crop, now.class_name, now.base):
                    now.own_mask.unlink(missing_ok=True)
                    now.painted, now.mask = False, found
                else:
                    now.forget_mask()

        return self.jobs.submit("mask", name, wishes, take)

    def plan(self, name: str) -> Job:
        """Begin to say what will happen."""
        with changing(name) as draft:
            self._require_unbegun(draft)
            wishes, asked = _wishes(draft), draft.wishes

        def take(planned: dict[str, Any]) -> None:
            with changing(name) as now:
                now.plan = {**planned, "wishes": asked}

        return self.jobs.submit("plan", name, wishes, take)

    # --- the run ------------------------------------------------------------------------------

    def write_recipe(self, name: str) -> Path:
        """Write the recipe as it was planned; nothing of another is overwritten.

        Raises:
            UserError: if the plan is not of what is asked now, or the file is another one.
        """
        with changing(name) as draft:
            return _write_recipe(draft)

    def start(self, name: str) -> None:
        """Begin the run as it was planned.

        Raises:
            UserError: if the plan doesn't allow it, or a run goes on.
        """
        works = self._folders()
        if busy := processes.busy_runs(works):
            raise UserError(f"a run goes on: {busy[0]}", do="wait for its end, or stop it")
        with changing(name) as draft:
            self._require_unbegun(draft)
            if draft.plan.get("wishes") == draft.wishes and not draft.plan["ready"]:
                raise UserError(
                    "the plan says that this run can't begin here", do="do what it advises"
                )
            file = _write_recipe(draft)
            if draft.plan["keeps_mask"]:
                _hand_over_mask(draft)
            self.jobs.release()
            draft.run = draft.plan["run"]
            draft.save()  # before the run begins: whatever happens, it is found again
            processes.begin(name, ["--config", str(file)], works)

    def resume(self, name: str) -> None:
        """Go on with a run that was stopped.

        Raises:
            UserError: if there is nothing to go on with, or a run goes on.
        """
        folder = self.folder(name)
        if not RunFolder(folder).recipe.is_file():
            raise UserError("this run had not begun", do="start it again")
        self.jobs.release()
        processes.begin(name, ["--resume", "--output", str(folder)], self._folders())

    def stop(self, name: str) -> None:
        """Ask a run to stop after its step and to save."""
        processes.ask_to_stop(name, self.folder(name))

    def require_open(self, name: str) -> None:
        """Raise a UserError if a photo is learned already, and so can't be changed."""
        draft = find_draft(name)
        if draft is not None:
            self._require_unbegun(draft)

    def _require_unbegun(self, draft: Draft) -> None:
        run = Path(draft.run) if draft.run else None
        if run and (RunFolder(run).holds_run() or processes.is_alive(draft.name, run)):
            raise UserError(
                "this photo is learned already", do="take it for another run by the button there"
            )

    # --- after it -----------------------------------------------------------------------------

    def draw(self, name: str, values: dict[str, Any]) -> Job:
        """Begin to draw.

        Raises:
            UserError: if nothing was learned yet, a run goes on, or a value is none that can be.
        """
        prompts = values.get("prompts")
        if not isinstance(prompts, list) or not all(isinstance(one, str) for one in prompts):
            raise UserError("the prompts are no list of texts", do="load the page again")
        prompts = [one.strip() for one in prompts if one.strip()]
        if not prompts:
            raise UserError("no prompt was given", do="write what shall be drawn, with V* in it")
        count = whole(values.get("count", 1), 1, MOST_PICTURES, "count")
        if len(prompts) * count > MOST_PICTURES:
            raise UserError(
                f"{len(prompts) * count} pictures are too many at once",
                do=f"ask for up to {MOST_PICTURES}",
            )
        wishes = {
            "adapter": self._adapter(name),
            "folder": str(SAMPLES / name),
            "prompts": prompts,
            "seed": whole(values.get("seed", 0), 0, 2**32 - 1, "seed"),
            "count": count,
            "scale": strength(values.get("scale", 1.0)),
            "both": values.get("both") is True,
        }
        if busy := processes.busy_runs(self._folders()):
            raise UserError(
                f"a run goes on: {busy[0]}", do="draw when it has ended, or stop it first"
            )
        return self.jobs.submit("draw", name, wishes, lambda files: None)

    def export(self, name: str, target: str) -> Job:
        """Begin to write files for another program.

        Raises:
            UserError: if nothing was learned yet.
        """
        folder = self.folder(name)
        wishes = {
            "target": target,
            "adapter": self._adapter(name),
            "run": str(folder),
            "output": str(output_of(name, target)),
        }
        if is_locked(folder):
            raise UserError("the run goes on", do="export when it has ended, or stop it first")
        return self.jobs.submit("export", name, wishes, lambda told: None)

    def _adapter(self, name: str) -> str:
        adapter = progress(name, self.folder(name))["adapter"]
        if not adapter:
            raise UserError("nothing was learned yet", do="train first")
        return str(adapter)


def _write_recipe(draft: Draft) -> Path:
    if draft.plan.get("wishes") != draft.wishes:
        raise UserError(
            "what will happen was not yet looked at, or something changed since",
            do="look at it first",
        )
    file = Path(f"{draft.name}.yaml")
    if file.exists() and draft.recipe_file != str(file):
        raise UserError(
            f"{file} is there already, and is left as it is", do="move it, or rename the photo"
        )
    write_text(file, draft.plan["text"])
    draft.recipe_file = str(file)
    return file


def _hand_over_mask(draft: Draft) -> None:
    """Copy the mask that was found to where the run would write it; so it isn't sought again."""
    folder = RunFolder(Path(draft.plan["run"])).masks
    folder.mkdir(parents=True, exist_ok=True)
    for file in (draft.found_mask.mask, draft.found_mask.overlay):
        shutil.copyfile(file, folder / file.name)


def _wishes(draft: Draft) -> dict[str, Any]:
    """Return a draft as the tasks take it."""
    files = draft.found_mask
    return {
        **asdict(draft),
        "photo": str(draft.photo),
        "files": [str(files.mask), str(files.overlay)],
        "own_mask": str(draft.own_mask),
    }
