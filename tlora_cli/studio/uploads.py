"""Files and values that a browser sends: bounded in size, read by the same walls as any file."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import TEMPORARY
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.photos.masks.checks import doubt
from tlora_cli.photos.masks.finder import coverage_of
from tlora_cli.studio.drafts import STUDIO, Draft, changing, new_draft

MOST = 64_000_000
"""Bytes of a photo; cameras write up to 50 million, as JPEG."""
MOST_MASK = 16_000_000
MOST_TEXT = 100_000
LONGEST_NAME = 200


class TooLarge(UserError):
    """More bytes than are taken."""


def check_name(name: str) -> str:
    """Return the name that a photo was given under.

    Raises:
        UserError: if it is a path, or no name.
    """
    if any(sign in name for sign in "/\\\0") or name in ("", ".", ".."):
        raise UserError(
            "the name of a photo can't hold a path",
            where=repr(name)[:80],
            do="give the photo a plain name, such as dog.jpg",
        )
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise UserError("the name of the photo is too long or odd", do="give it a plain name")
    return name


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        f"the file is larger than {most // 10**6} MB, which is too large for a photo",
        do="save it as a JPEG of fewer pixels",
    )


async def _chunks(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield the body; no more than `most` bytes of it are taken.

    Raises:
        TooLarge: if it is longer, or says that it will be.
    """
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > most:
        raise _too_large(most)
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > most:
            raise _too_large(most)
        yield chunk


@asynccontextmanager
async def _file_of(request: Request, most: int) -> AsyncIterator[Path]:
    """Yield a temporary file with the body; it is gone afterwards, unless it was moved."""
    STUDIO.mkdir(parents=True, exist_ok=True)
    file = STUDIO / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with file.open("xb") as opened:
            async for chunk in _chunks(request, most):
                opened.write(chunk)
        yield file
    finally:
        file.unlink(missing_ok=True)


async def take_photo(request: Request) -> Draft:
    """Take a photo: the body is the file, `name` in the query its name.

    Raises:
        UserError: if it is too large, no picture that can be read, or its name is no name.
    """
    name = check_name(request.query_params.get("name", ""))
    async with _file_of(request, MOST) as file:
        try:
            return await run_in_threadpool(new_draft, file, name)
        except UserError as error:  # of the temporary file, whose name says nothing to anybody
            what = error.what.replace(str(file), name)
            raise UserError(what, error.where.replace(str(file), name), error.do) from error


async def take_mask(request: Request, name: str) -> None:
    """Take the mask of a draft that was corrected by hand: the body is a picture.

    Raises:
        UserError: if it can't be read, or nothing is white in it.
    """
    async with _file_of(request, MOST_MASK) as file:
        await run_in_threadpool(_paint, name, file)


def _paint(name: str, file: Path) -> None:
    mask = read_picture(file, "mask", "L")
    share = coverage_of(mask)
    if not share:
        raise UserError("the mask is empty", where="mask", do="paint over the subject")
    notes = {"by": "your brush", "coverage": round(share, 4), "doubt": doubt(share)}
    with changing(name) as draft:
        draft.paint(mask, notes)


async def values_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings.

    Raises:
        UserError: if it is none.
    """
    body = b"".join([chunk async for chunk in _chunks(request, MOST_TEXT)])
    try:
        values = parse_json(body or b"{}")
    except ValueError as error:
        raise UserError("the request is no JSON", do="load the page again") from error
    if not isinstance(values, dict):
        raise UserError("the request is no JSON object", do="load the page again")
    return values
