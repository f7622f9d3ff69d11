"""Licenses of base models: an adapter is bound by its base's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.foundation.errors import UserError


@dataclass(frozen=True)
class License:
    """A license as the Hub's model cards name it.

    Attributes:
        id: one of the Hub's, such as `openrail++`.
        name, link: of a license that is `other` there.
    """

    id: str
    name: str | None = None
    link: str | None = None


LICENSES = {
    "stabilityai/stable-diffusion-xl-base-1.0": License("openrail++"),
    "black-forest-labs/FLUX.1-dev": License(
        "other",
        "flux-1-dev-non-commercial-license",
        "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
    ),
    "black-forest-labs/FLUX.1-schnell": License("apache-2.0"),
}
"""Base -> its license, as its own model card says it."""


def license_of(base: str, given: str | None) -> License:
    """Return the license of a base, or the given one.

    Raises:
        UserError: if it is not known and none is given, or the given one is no license's name.
    """
    if given is None:
        if bundle := bundle_of_base(base):
            return License(bundle.license)
        if base not in LICENSES:
            raise UserError(
                f"the license of {base} is not known here",
                do="pass --license with the one its model card says, e.g. --license openrail++",
            )
        return LICENSES[base]
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", given):
        raise UserError(
            f"--license {given!r} is not how the Hub names a license",
            do="write it as in a model card's header: openrail++, apache-2.0, other",
        )
    return License(given)
