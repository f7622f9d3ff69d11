"""Keep libraries from talking over the program; TLORA_DEBUG=1 lets them."""

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
