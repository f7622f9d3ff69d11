"""Calls of the command line are forks, which saves ten seconds each; nothing may turn that off."""

from __future__ import annotations

import os

import cv2  # noqa: F401  (sets LD_LIBRARY_PATH)
import pytest
import torch._inductor.config  # noqa: F401  (may set TORCHINDUCTOR_CACHE_DIR)
from training_runs import ROOT, fork_server

from tlora_cli.cli.quiet import HUSHED

HERE = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ({}, True),
        (HUSHED, True),
        ({"TLORA_CACHE": "elsewhere"}, True),
        ({"HF_HUB_OFFLINE": "no"}, False),
        ({"TRANSFORMERS_VERBOSITY": "info"}, False),
        ({"TLORA_DEBUG": "1"}, False),
    ],
)
def test_only_what_is_read_on_import_takes_a_process_of_its_own(
    more: dict[str, str], taken: bool
) -> None:
    assert fork_server().takes({**HERE, **more}) is taken
