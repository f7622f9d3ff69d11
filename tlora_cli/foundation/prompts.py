"""Prompts: the words for the concept, filled in."""

from __future__ import annotations

from tlora_cli.foundation.errors import UserError

CONCEPT_MARKS = ("V*", "{concept}")
"""The word for the concept in a prompt for sampling."""


def concept_words(placeholder: str | None, class_name: str | None) -> str:
    """Return the words for a concept in prompts, "sks dog"; what is not known is left out."""
    return " ".join(word for word in (placeholder, class_name) if word)


def training_prompt(template: str, placeholder: str, class_name: str) -> str:
    """Fill {placeholder} and {class}: "a photo of sks dog"."""
    return template.replace("{placeholder}", placeholder).replace("{class}", class_name)


def sampling_prompt(prompt: str, concept: str | None) -> str:
    """Replace V* and {concept} by placeholder and class, e.g. "sks dog".

    Raises:
        UserError: if the prompt has a mark and the concept is not known.
    """
    for mark in CONCEPT_MARKS:
        if mark in prompt:
            if concept is None:
                raise UserError(
                    f"the prompt says {mark}, but the adapter does not say what it stands for",
                    where=repr(prompt),
                    do='write the words yourself, or pass --concept "sks dog"',
                )
            prompt = prompt.replace(mark, concept)
    return prompt
