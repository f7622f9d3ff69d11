"""docs/families.md is what the families say."""

from __future__ import annotations

import families_reference as reference

from tlora_cli.families import FAMILIES


def test_the_page_is_what_the_families_say() -> None:
    made = reference.page()
    assert reference.PAGE.read_text("utf-8") == made, "run `python scripts/families_reference.py`"
    for family in FAMILIES.values():
        for base in (family.standard_base, *family.other_bases):
            assert f"| `{family.name}` | {base.partition('/')[2]} |" in made
