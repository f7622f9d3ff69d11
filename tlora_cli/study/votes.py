"""The votes of a study, in SQLite: a vote that was acknowledged is on the disk.

Each answer is a transaction with `synchronous=FULL`, so neither a killed program nor a power cut
loses it. What a rater was shown stands beside his answers, so the file can be read without this
program.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.foundation.errors import UserError
from tlora_cli.study.design import Study
from tlora_cli.study.trials import AGAIN, EQUAL, PAIR, Trial, trials_of

FILE = "votes.sqlite"
QUESTIONS = {
    "concept": "Which one is more like the thing in the photograph?",
    "text": "Which one follows the text better?",
    "overall": "Which one is better overall?",
}
"""The questions of the paper's user study; their names are those of the columns of its table 3."""
LEFT, RIGHT, SAME = "left", "right", "same"
ANSWERS = (LEFT, RIGHT, SAME)
LONGEST_NAME = 60

_TABLES = """
CREATE TABLE IF NOT EXISTS raters (
  number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, shown TEXT NOT NULL, began REAL NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
  rater INTEGER NOT NULL REFERENCES raters (number), position INTEGER NOT NULL, kind TEXT NOT NULL,
  pair INTEGER NOT NULL, first_left INTEGER NOT NULL, left TEXT NOT NULL, right TEXT NOT NULL,
  PRIMARY KEY (rater, position));
CREATE TABLE IF NOT EXISTS votes (
  rater INTEGER NOT NULL, position INTEGER NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL,
  seconds REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (rater, position, question),
  FOREIGN KEY (rater, position) REFERENCES trials (rater, position));
"""


@dataclass(frozen=True)
class Vote:
    """An answer, with what it is about.

    Attributes:
        rater: number of the rater.
        trial: what was shown.
        question: a name of `QUESTIONS`.
        answer: `left`, `right` or `same`.
        seconds: it took.
    """

    rater: int
    trial: Trial
    question: str
    answer: str
    seconds: float

    @property
    def prefers_first(self) -> float:
        """1 for the first method, 0 for the other, 0.5 for neither."""
        if self.answer == SAME:
            return 0.5
        return float((self.answer == LEFT) == self.trial.first_left)


class Votes:
    """The votes of a study; every call opens the file anew, so threads share nothing."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._file = study.folder / FILE

    def rater(self, name: str) -> int:
        """Return the number of a rater, who gets one, and his trials, the first time.

        Raises:
            ValueError: if it is no name.
        """
        shown = " ".join(name.split())
        if not shown or len(shown) > LONGEST_NAME or not shown.isprintable():
            raise ValueError(f"a name has 1 to {LONGEST_NAME} letters")
        key = shown.casefold()
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            found = file.execute("SELECT number FROM raters WHERE name = ?", (key,)).fetchone()
            if found:
                return int(found[0])
            [number] = file.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM raters").fetchone()
            row = (number, key, shown, time.time())
            file.execute("INSERT INTO raters VALUES (?, ?, ?, ?)", row)
            file.executemany(
                "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, t.position, t.kind, t.pair, int(t.first_left), t.left, t.right)
                    for t in trials_of(self._study, number)
                ],
            )
            return int(number)

    def names(self) -> dict[int, str]:
        """Return number -> name of all raters."""
        with self._open() as file:
            return dict(file.execute("SELECT number, shown FROM raters ORDER BY number"))

    def trials(self, rater: int) -> list[Trial]:
        """Return a rater's trials in order."""
        with self._open() as file:
            rows = file.execute(
                "SELECT position, kind, pair, first_left, left, right FROM trials "
                "WHERE rater = ? ORDER BY position",
                (rater,),
            )
            return [Trial(p, kind, pair, bool(f), le, ri) for p, kind, pair, f, le, ri in rows]

    def answered(self, rater: int) -> dict[int, dict[str, str]]:
        """Return position -> question -> answer of a rater."""
        found: dict[int, dict[str, str]] = {}
        with self._open() as file:
            for position, question, answer in file.execute(
                "SELECT position, question, answer FROM votes WHERE rater = ?", (rater,)
            ):
                found.setdefault(position, {})[question] = answer
        return found

    def vote(self, rater: int, position: int, question: str, answer: str, seconds: float) -> None:
        """Keep an answer; see `vote_all`."""
        self.vote_all(rater, [(position, question, answer, seconds)])

    def vote_all(self, rater: int, given: Sequence[tuple[int, str, str, float]]) -> None:
        """Keep answers; one that is given again replaces what was answered.

        When this returns, they are on the disk.

        Args:
            rater: number of the rater.
            given: position, question, answer and seconds of each.

        Raises:
            ValueError: if there is no such trial, question or answer; then none is kept.
        """
        for _, question, answer, seconds in given:
            if question not in QUESTIONS or answer not in ANSWERS:
                raise ValueError("there is no such question or answer")
            if not 0 <= seconds < math.inf:
                raise ValueError("the time of an answer is a number of seconds")
        try:
            with self._open() as file:
                file.executemany(
                    "INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "answer = excluded.answer, seconds = excluded.seconds, at = excluded.at",
                    [(rater, *one, time.time()) for one in given],
                )
        except sqlite3.IntegrityError:
            raise ValueError("there is no such trial") from None

    def all(self) -> list[Vote]:
        """Return every vote, by rater and position."""
        with self._open() as file:
            rows = file.execute(
                "SELECT v.rater, v.question, v.answer, v.seconds, t.position, t.kind, t.pair, "
                "t.first_left, t.left, t.right FROM votes v JOIN trials t USING (rater, position) "
                "ORDER BY v.rater, t.position, v.rowid"
            ).fetchall()
        votes = [
            Vote(rater, Trial(p, kind, pair, bool(f), le, ri), question, answer, seconds)
            for rater, question, answer, seconds, p, kind, pair, f, le, ri in rows
        ]
        if not all(map(self._can_be, votes)):
            raise _unreadable(self._file, "an answer is none that was given")
        return votes

    def _can_be(self, vote: Vote) -> bool:
        trial = vote.trial
        whole = (vote.rater, trial.position, trial.pair)
        return (
            all(type(one) is int for one in whole)
            and 0 <= trial.pair < len(self._study.pairs)
            and trial.kind in (PAIR, AGAIN, EQUAL)
            and vote.question in QUESTIONS
            and vote.answer in ANSWERS
            and isinstance(vote.seconds, float)
            and 0 <= vote.seconds < math.inf
        )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection; what is done with it is one transaction."""
        try:
            with closing(sqlite3.connect(self._file, timeout=30)) as file:
                file.execute("PRAGMA synchronous = FULL")
                file.execute("PRAGMA foreign_keys = ON")
                file.executescript(_TABLES)
                with file:
                    yield file
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.Error, UnicodeError) as error:  # which a damaged schema raises
            raise _unreadable(self._file, error) from error


def _unreadable(file: Path, error: Exception | str) -> UserError:
    return UserError(
        f"the votes can't be read or written: {error}",
        where=str(file),
        do="check that the disk has room and the file may be written; it is an SQLite database",
    )
