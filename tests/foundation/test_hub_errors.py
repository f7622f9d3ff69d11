"""Settings of network and cache are told as what they are, not as a damaged base."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from huggingface_hub import errors as hub_errors
from training_runs import tlora, write_recipe

from tlora_cli.foundation.hub_errors import explained

MODEL = "someone/a-model"
ONLINE = {"HF_HUB_OFFLINE": "0"}


@pytest.mark.parametrize(
    ("name", "value", "words", "remedy"),
    [
        pytest.param(
            "ALL_PROXY", "socks://127.0.0.1:1/", "the proxy in ALL_PROXY can't be used",
            "socks5://", marks=pytest.mark.full,
        ),
        ("ALL_PROXY", "socks5://127.0.0.1:1/", "the proxy in ALL_PROXY", "pip install socksio"),
        ("SSL_CERT_FILE", "/no/ca.pem", "SSL_CERT_FILE names /no/ca.pem", "mend"),
        ("HF_TOKEN", "hf_\u00e4", "the token in HF_TOKEN has a character", "copy it again"),
        ("HF_ENDPOINT", "hub.example", "HF_ENDPOINT is hub.example", "https:// in front"),
    ],
)  # fmt: skip
def test_settings_of_the_environment(
    name: str, value: str, words: str, remedy: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    """Through the command line: each is read once, when the network library starts."""
    written = write_recipe(tiny_sdxl, tmp_path / "t", base=MODEL)
    cache = {"HF_HOME": str(tmp_path / "home")}
    outcome = tlora("train", "--config", written, env={**ONLINE, **cache, name: value})
    assert outcome.returncode == 2
    assert words in outcome.stderr
    assert remedy in outcome.stderr
    assert "damaged" not in outcome.stderr


def test_offline_is_named(tiny_sdxl: Path, tmp_path: Path) -> None:
    written = write_recipe(tiny_sdxl, tmp_path / "t", base=MODEL)
    outcome = tlora("train", "--config", written, env={"HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE is set" in outcome.stderr


class NetworkError(Exception):
    """An error of the library that huggingface_hub asks through, whose name has changed."""

    __module__ = "httpx2._exceptions"


def hub_error(kind: Any, status: int, text: str) -> Exception:
    error: Exception = kind(text, response=Mock(headers={}, status_code=status, request=None))
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NetworkError("timed out"), "the Hub can't be reached"),
        (NetworkError("certificate verify failed"), "certificate is not trusted"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of its cache is full"),
        (PermissionError(errno.EACCES, "denied", "/x"), "its cache can't be written"),
        (
            hub_error(hub_errors.HfHubHTTPError, 401, "Invalid credentials in header"),
            "it does not take the token",
        ),
        (
            hub_error(hub_errors.RemoteEntryNotFoundError, 404, "no such file"),
            "holds no whole diffusers model",
        ),
    ],
)
def test_what_the_network_raises(error: Exception, words: str) -> None:
    told = explained(error, MODEL)
    assert words in told.what
    assert told.do


def test_a_folder_is_not_blamed_on_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    told = explained(OSError("Error no file named config.json"), str(tmp_path))
    assert "can't be loaded: OSError: Error no file named" in told.what
