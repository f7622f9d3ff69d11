"""Registries: what can be added without a change of this program.

A registry knows its entries by name, and where each is defined as `module:attribute`; it imports
one when it is asked for, so a list of names costs nothing. Another package adds entries through an
entry point group of the same form:

    [project.entry-points."tlora.methods"]
    my_method = "my_package:MY_METHOD"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from tlora_cli.foundation.errors import UserError

EntryT = TypeVar("EntryT")


class Registry(Mapping[str, EntryT], Generic[EntryT]):
    """Name -> entry, the program's own first, then those of installed packages by name.

    Args:
        group: entry point group, such as `tlora.methods`.
        own: name -> `module:attribute` of what the program brings along.

    Raises:
        UserError: if a package adds a name that is taken, or (on access) if its entry can't be
            imported.
    """

    def __init__(self, group: str, own: Mapping[str, str]) -> None:
        self.group = group
        self._own = dict(own)
        self._loaded: dict[str, EntryT] = {}

    @cached_property
    def _added(self) -> dict[str, EntryPoint]:
        """The entry points of other packages, by name."""
        found: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            if point.name in self._own or point.name in found:
                raise UserError(
                    f"{_owner(point)} adds {point.name!r} to {self.group}, and that name is taken",
                    do="remove that package, or ask its authors to choose another name",
                )
            found[point.name] = point
        return found

    def __getitem__(self, name: str) -> EntryT:
        """Return an entry; it is imported the first time."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        if name in self._own:
            return resolve(self._own[name])
        point = self._added[name]
        try:
            return point.load()
        except Exception as error:  # whatever the other package does when it is imported
            raise UserError(
                f"{_owner(point)} adds {name!r} to {self.group}, but it can't be imported: "
                f"{type(error).__name__}: {error}",
                where=point.value,
                do="update or remove that package",
            ) from error

    def __iter__(self) -> Iterator[str]:
        """Yield the names in order; nothing is imported."""
        yield from self._own
        yield from self._added

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._own) + len(self._added)

    def __repr__(self) -> str:
        """Say what it lists."""
        return f"<{self.group}: {', '.join(self)}>"

    def __contains__(self, name: object) -> bool:
        """Whether there is an entry of that name; nothing is imported."""
        return name in self._own or name in self._added


def resolve(place: str) -> Any:
    """Return what stands at `module:attribute`; the module is imported."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def _owner(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist else "an installed package"
