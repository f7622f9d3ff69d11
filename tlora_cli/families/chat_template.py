"""Prompts in a language model's chat template: what stands around them takes tokens, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlora_cli.foundation.errors import UserError

MARK = "§"
"""Text in the place of a prompt, to find where a chat template puts it."""


def user_message(text: str) -> Any:
    """Return a conversation of one message."""
    return [{"role": "user", "content": text}]


def room_of_chat(
    title: str, tokenizer: Any, limit: int, messages: Callable[[str], Any] = user_message
) -> int:
    """Return how many tokens of a prompt are read, if `limit` are read in all.

    What the template puts behind a prompt is cut off first.

    Args:
        title: of the family, for messages.
        tokenizer: with a chat template.
        limit: tokens.
        messages: prompt -> conversation.

    Raises:
        UserError: if the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the base's tokenizer has no chat template, into which {title} puts a prompt",
            where="tokenizer",
            do="get the base's files again, chat_template.jinja among them",
        )
    filled = tokenizer.apply_chat_template(messages(MARK), tokenize=False)
    return limit - len(tokenizer(filled.partition(MARK)[0], add_special_tokens=False).input_ids)
