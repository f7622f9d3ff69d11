"""The words for a base that could not be loaded: what the Hub and the network say, and why."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import expanded

_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")


def has_own_way() -> bool:
    """Whether the Hub is asked through a proxy, or with a setting that is wrong in itself."""
    proxy = _said((*_PROXIES, *(name.lower() for name in _PROXIES)))
    certificates, token = _said(_CERTIFICATES), _said(_TOKENS)
    lost = bool(certificates) and not Path(os.environ[certificates]).exists()
    return bool(proxy) or lost or (bool(token) and _odd(os.environ[token]))


def _odd(token: str) -> bool:
    """Whether a token has a character that no token has."""
    return not token.isascii() or not token.isprintable() or token.strip() != token


def fetching(model: str, variant: str | None = None) -> str:
    """Return the command that downloads what is loaded of a repository, and not all there is.

    Beside the parts that are loaded, repositories hold the whole model in one file, and the parts
    in other number formats and for other programs: tens of gigabytes.
    """
    kinds = ["*.json", "*.txt", "*.model", "*.jinja", f"*/*.{variant}.safetensors"]
    if variant is None:
        kinds[-1] = "*/*.safetensors"
    words = "".join(f' --include "{kind}"' for kind in kinds)
    others = "" if variant else ' --exclude "*.fp16.safetensors"'
    return f"hf download {model}{words}{others}"


def explained(
    error: Exception, model: str, revision: str | None = None, variant: str | None = None
) -> UserError:
    """Return what to tell of a failed load or look-up, and what to do about it.

    Args:
        error: that was raised.
        model: the base, as it was given.
        revision: of a Hub repository.
        variant: of its weights.
    """
    if isinstance(error, UserError):
        return error
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    local = expanded(model).exists()
    setting = None if local else _setting(chain)
    if setting:
        what, do, kind = setting
        return UserError(f"the Hub can't be asked for {model}: {what}", "base", do, kind)
    away = (
        f"base not found: {model} is not on this machine and the Hub can't be reached",
        "check the path or the connection, or download it once: " + fetching(model, variant),
    )
    kind = Status.MISSING
    if among(GatedRepoError):
        what = f"the base model {model} is gated: its owner asks you to accept a license"
        do = f"accept it on https://huggingface.co/{model}, then run `hf auth login`"
    elif among(RevisionNotFoundError):
        what = f"the base model {model} has no revision {revision}"
        do, kind = "check base.revision", Status.MISTAKE
    elif among(RepositoryNotFoundError):
        what = f"base not found: there is no folder, file or public Hub repository {model}"
        do = "check the spelling; for a private repository run `hf auth login`"
    elif not local and among(OfflineModeIsEnabled, LocalEntryNotFoundError) and _offline():
        what = f"{away[0]}, because {_offline()} is set"
        do = f"unset it, or download the model once: {fetching(model, variant)}"
    elif among(LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) or (
        not local and any(_package(link) in _NETWORK for link in chain)
    ):
        (what, do), kind = away, Status.LATER
    elif among(EntryNotFoundError):
        what = (
            f"the repository {model} holds no whole diffusers model: a file of it is missing. It "
            "may hold a single file, an adapter or a ControlNet"
        )
        do = "name the repository of the whole model, or download its single file and name that"
        kind = Status.MISTAKE
    elif among(HfHubHTTPError):
        (what, do), kind = away, Status.LATER
    else:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        what = f"the base model {model} can't be loaded: {type(error).__name__}: {reason[:300]}"
        do = "check that all its files are there and whole; download it again if in doubt"
        kind = Status.MISTAKE
    return UserError(what, where="base.model", do=do, kind=kind)


def _offline() -> str:
    """Return the variable by which the Hub must not be asked, or nothing."""
    names = (name for name in _OFFLINE if os.environ.get(name, "").upper() in _TRUE)
    return next(names, "") if constants.HF_HUB_OFFLINE else ""


def _package(error: BaseException) -> str:
    """Return the package that an error's class is of."""
    return type(error).__module__.partition(".")[0]


def _setting(chain: list[BaseException]) -> tuple[str, str, Status] | None:
    """Return the setting of this machine that an error comes from, what to do, and its kind.

    The network libraries raise whatever they stumble over; what is looked for is a sign of each
    setting in one of the errors, and that the setting is there.
    """
    told = " ".join(f"{type(link).__name__} {link}" for link in chain).lower()
    proxy = _said((*_PROXIES, *(name.lower() for name in _PROXIES)))
    if proxy and ("proxy" in told or "socks" in told):
        needs = "socksio" in told or "pysocks" in told or "socks support" in told
        return (
            f"the proxy in {proxy} can't be used ({_reason(chain)})",
            "pip install socksio, or name an http:// proxy there, or unset it"
            if needs
            else "give it as http://HOST:PORT or socks5://HOST:PORT, or unset it",
            Status.MISTAKE,
        )
    certificates = _said(_CERTIFICATES)
    if certificates:
        path = os.environ[certificates]
        if not Path(path).exists() and any(
            isinstance(link, OSError) or "certificate" in str(link).lower() for link in chain
        ):
            return (
                f"{certificates} names {path}, which does not exist",
                "mend the path, or unset it",
                Status.MISTAKE,
            )
    if "certificate verify failed" in told or "certificate_verify_failed" in told:
        return (
            "its certificate is not trusted here, as behind a company's proxy",
            "set SSL_CERT_FILE to the file of your company's certificates",
            Status.MISTAKE,
        )
    token = _said(_TOKENS)
    text = os.environ.get(token, "") if token else ""
    if token and _odd(text) and ("codec can't encode" in told or "header" in told):
        return (
            f"the token in {token} has a character that no token has",
            "copy it again from https://huggingface.co/settings/tokens, without spaces or quotes",
            Status.MISTAKE,
        )
    if any(_status(link) == 401 and "invalid" in str(link).lower() for link in chain):
        return (
            "it does not take the token" + (f" in {token}" if token else ""),
            "copy it again from https://huggingface.co/settings/tokens, or unset it",
            Status.MISSING,
        )
    if os.environ.get("HF_ENDPOINT") and ("protocol" in told or "invalidurl" in told):
        return (
            f"HF_ENDPOINT is {os.environ['HF_ENDPOINT']}, which is no address",
            "give it with https:// in front, or unset it",
            Status.MISTAKE,
        )
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    if errno.ENOSPC in numbers:
        do = "free disk space, or set HF_HUB_CACHE to another"
        return "the disk of its cache is full", do, Status.NO_ROOM
    if numbers & {errno.EACCES, errno.EROFS, errno.EPERM}:
        return (
            f"its cache can't be written ({_reason(chain)})",
            "set HF_HOME to a folder that can be written",
            Status.MISTAKE,
        )
    return None


def _status(error: BaseException) -> int | None:
    """Return the status that the Hub answered with, if the error has one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _said(names: tuple[str, ...]) -> str:
    """Return the first of the variables that is set, or nothing."""
    return next((name for name in names if os.environ.get(name)), "")


def _reason(chain: list[BaseException]) -> str:
    """Return the first line of the innermost error."""
    link = chain[-1]
    return (str(link).splitlines() or [type(link).__name__])[0][:200]
