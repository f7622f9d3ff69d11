"""The parts of a run: word and weights together, or the word first and the weights after it.

The second is pivotal tuning (Roich et al. 2021, arXiv 2106.05744): a place in what the model
already knows is found first, here a word's embedding, and the weights are tuned around it, while it
stays. So they have to learn only what no word says.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """The part of a run that a step lies in.

    Attributes:
        step: number of the step in this part, from 0.
        steps: of this part.
        word: whether the word is learned, if the run learns one.
        weights: whether the adapter's weights are learned.
    """

    step: int
    steps: int
    word: bool = True
    weights: bool = True


def phase_at(step: int, steps: int, word_share: float | None) -> Phase:
    """Return the part that a step lies in, a function of the recipe alone.

    Args:
        step: of the run, from 0.
        steps: of the whole run.
        word_share: share of the steps, the first ones, in which the word alone is learned; None:
            all is learned all the time.
    """
    if word_share is None:
        return Phase(step, steps)
    first = int(word_share * steps)
    if step < first:
        return Phase(step, first, weights=False)
    return Phase(step - first, steps - first, word=False)
