"""The Hugging Face Hub: who is logged in, and the upload of a folder."""

from __future__ import annotations

import shlex
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.hub import is_hub_id

_LOGIN = "log in with `hf auth login`, with a token that may write, or set HF_TOKEN"


def check_login(repository: str) -> None:
    """Make sure that an upload can begin, before hours are spent on pictures.

    Raises:
        UserError: if the name is none, nobody is logged in, or the Hub can't be reached.
    """
    if not is_hub_id(repository):
        raise UserError(f"--upload {repository} is no repository", do="write it as OWNER/NAME")
    try:
        HfApi().whoami()
    except Exception as error:  # whatever the network makes the library raise
        raise _explained(error, "the upload can't begin", "") from error


def upload(folder: Path, repository: str, public: bool) -> str:
    """Upload a folder as one commit and return the repository's address.

    A new repository is private unless told otherwise. One that exists takes a commit, so nothing
    in it is lost.

    Args:
        folder: what `publish` has written.
        repository: OWNER/NAME.
        public: whether everyone may see it.

    Raises:
        UserError: if the Hub refuses or can't be reached, or if the repository is public and that
            was not asked for. The folder stays.
    """
    api = HfApi()
    by_hand = f"hf upload {'' if public else '--private '}{repository} {shlex.quote(str(folder))}"
    later = f"the folder is kept; later: {by_hand}"
    try:
        address = str(api.create_repo(repository, private=not public, exist_ok=True))
        visible = not api.model_info(repository).private
        if visible and not public:
            raise UserError(
                f"{repository} is public, so everyone would see the upload",
                where=str(folder),
                do="choose another repository; or, if everyone may see it: "
                + by_hand.replace("--private ", ""),
            )
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the adapter")
    except UserError:
        raise
    except Exception as error:  # whatever the network makes the library raise
        raise _explained(error, "the upload failed", str(folder), later) from error
    return address


def _explained(error: Exception, what: str, where: str, later: str = "") -> UserError:
    """Return what went wrong, and what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        told, do, kind = "the Hub is set to offline", "unset HF_HUB_OFFLINE", Status.MISTAKE
    elif isinstance(error, LocalTokenNotFoundError):
        told, do, kind = "nobody is logged in to the Hub", _LOGIN, Status.MISSING
    elif isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        told, do, kind = f"the Hub answers {status}", "try again later", Status.LATER
        if status in (401, 403):
            told = f"the Hub does not allow it ({status})"
            do, kind = _LOGIN, Status.MISSING
    else:
        told = f"the Hub can't be reached at {constants.ENDPOINT} ({type(error).__name__})"
        do, kind = "check the network", Status.LATER
    return UserError(f"{what}: {told}", where, "; ".join(filter(None, (do, later))), kind)
