"""Licenses of base models: an adapter is bound by its base's."""

from __future__ import annotations

import re

from tlora_cli.families import FAMILIES
from tlora_cli.families.facts import License
from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.foundation.errors import UserError


def license_of(base: str, given: str | None) -> License:
    """Return the license of a base, or the given one.

    Raises:
        UserError: if it is not known and none is given, or the given one is no license's name.
    """
    if given is None:
        if bundle := bundle_of_base(base):
            return License(bundle.license)
        for family in FAMILIES.values():
            if base in family.licenses:
                return family.licenses[base]
        raise UserError(
            f"the license of {base} is not known here",
            do="pass --license with the one its model card says, e.g. --license openrail++",
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", given):
        raise UserError(
            f"--license {given!r} is not how the Hub names a license",
            do="write it as in a model card's header: openrail++, apache-2.0, other",
        )
    return License(given)
