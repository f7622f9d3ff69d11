"""Keep libraries from talking over the program, and warnings plain; TLORA_DEBUG=1 lets all be."""

from __future__ import annotations

import codecs
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tlora_cli.foundation.errors import FULL

HUSHED = {f"{name}_VERBOSITY": "error" for name in ("TRANSFORMERS", "DIFFUSERS", "HF_HUB")}
"""Variables that the libraries read when they are imported, and their values."""


def hush_libraries() -> None:
    """Turn off notices of the model libraries. Call before they are imported."""
    if os.environ.get("TLORA_DEBUG") == "1":
        return
    for name, level in HUSHED.items():
        os.environ.setdefault(name, level)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    plain_warnings()


def plain_warnings() -> None:
    """Print a warning as one line to read, without the place in the code that Python adds."""
    if os.environ.get("TLORA_DEBUG") != "1":
        warnings.formatwarning = _plain


def in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale knows ASCII only, as LC_ALL=C does.

    There no file whose name has an umlaut could be opened, nor its name be printed.
    """
    if sys.flags.utf8_mode or codecs.lookup(sys.getfilesystemencoding()).name != "ascii":
        return
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


@contextmanager
def calm_threads() -> Iterator[None]:
    """Have a thread that fails say so in a line within, where Python prints its traceback.

    Nor is anything said of files that can't be closed on a full disk: the write before has failed,
    and was told of.
    """
    threads, dropped = threading.excepthook, sys.unraisablehook

    def failed(told: threading.ExceptHookArgs) -> None:
        name = told.thread.name if told.thread else "a thread"
        reason = str(told.exc_value).partition("\n")[0]
        line = f"warning: {name} has ended early ({told.exc_type.__name__}: {reason})"
        with suppress(OSError):
            print(line, file=sys.stderr)

    def lost(told: sys.UnraisableHookArgs) -> None:
        if not (isinstance(told.exc_value, OSError) and told.exc_value.errno in FULL):
            dropped(told)

    if os.environ.get("TLORA_DEBUG") == "1":
        yield
        return
    threading.excepthook, sys.unraisablehook = failed, lost
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = threads, dropped


def _plain(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    return f"warning: {message}\n"
