"""Keep libraries from talking over the program, and warnings plain; TLORA_DEBUG=1 lets all be."""

from __future__ import annotations

import logging
import os
import warnings


def hush_libraries() -> None:
    """Turn off notices of the model libraries. Call before they are imported."""
    if os.environ.get("TLORA_DEBUG") == "1":
        return
    for name in ("TRANSFORMERS", "DIFFUSERS", "HF_HUB"):
        os.environ.setdefault(f"{name}_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    plain_warnings()


def plain_warnings() -> None:
    """Print a warning as one line to read, without the place in the code that Python adds."""
    if os.environ.get("TLORA_DEBUG") != "1":
        warnings.formatwarning = _plain


def _plain(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    return f"warning: {message}\n"
