"""Mutated pickles and torch's archives of them: hostile ones, bombs, other numbers."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def saved(content: Any, old: bool = False) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def other_bytes(chance: random.Random, data: bytes) -> bytes:
    """Return data with one to sixty bytes changed."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 4, 60))):
        where = chance.randrange(chance.choice((64, 4000, len(data))))
        changed[min(where, len(data) - 1)] = chance.randrange(256)
    return bytes(changed)


def cut(chance: random.Random, data: bytes) -> bytes:
    """Return the beginning of data."""
    return data[: chance.choice((0, 1, 7, 8, 9, 100, len(data) - 1, chance.randrange(len(data))))]


class _Hostile:
    """Pickles to a call."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.what = (call, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what


def _nested(end: bytes) -> bytes:
    """Return a pickle of a dict with tuples in tuples: a few bytes a level, twice the work to hash.

    Args:
        end: the opcodes that put the tuple into the dict.
    """
    levels = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    return b"\x80\x02}X\x01\0\0\0x\x85" + levels + end + b"."


HOSTILE: dict[str, Callable[[], Any]] = {
    "system": lambda: {"a": _Hostile(__import__("os").system, "touch trap")},
    "eval": lambda: {"a": _Hostile(eval, "open('trap', 'w')")},
    "exec": lambda: {"a": _Hostile(exec, "open('trap', 'w')")},
    "getattr": lambda: {"a": _Hostile(getattr, "x", "upper")},
    "bytes": lambda: {"a": _Hostile(bytearray, 3_000_000_000)},
    "nested key": lambda: _nested(b"K\x01s"),
    "far memo": lambda: b"\x80\x02}r\0\0\0\x20.",
    "long number": lambda: b"\x80\x02}X\x01\0\0\0x\x8b\0\0\0\x7f.",
    "long text": lambda: b"\x80\x04}\x8d\0\0\0\0\0\x10\0\0x.",
    "deep": lambda: b"\x80\x02" + b"(" * 10**6 + b"t" * 10**6 + b".",
    "popped": lambda: b"\x80\x02" + b"0" * 9 + b".",
    "module": lambda: nn.Linear(2, 2),
    "numbers": lambda: {"a": 10**30_000},
    "loop": lambda: _loop(),
    "sparse": lambda: {"a": torch.eye(3).to_sparse()},
    "meta": lambda: {"unet.a.lora_A.weight": torch.zeros(10**9, device="meta")},
    "complex": lambda: {"unet.a.lora_A.weight": torch.zeros(2, 2, dtype=torch.complex64)},
    "expanded": lambda: {"unet.a.lora_A.weight": torch.zeros(1).expand(10**6, 10**6)},
    "parameter": lambda: {"unet.a.lora_A.weight": nn.Parameter(torch.zeros(2, 2))},
    "names": lambda: {1: torch.zeros(1), None: torch.zeros(1)},
}
"""Things that no adapter holds: a value to be pickled, or a pickle."""


def _loop() -> Any:
    values: list[Any] = []
    values.append(values)
    return {"a": values}


def in_archive(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Change a file of torch.save, a ZIP archive."""
    what = chance.choice(("hostile", "hostile", "pickle", "numel", "size", "bomb", "zip", "record"))
    if what == "hostile":
        name = chance.choice(list(HOSTILE))
        content = HOSTILE[name]()
        if not isinstance(content, bytes):
            return saved(content), f"{what} {name}"
        what += f" {name}"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    names = list(parts)
    pickled = next(name for name in names if name.endswith("data.pkl"))
    compression = zipfile.ZIP_STORED
    if what.startswith("hostile"):
        parts[pickled] = content
    elif what == "pickle":
        parts[pickled] = other_bytes(chance, parts[pickled])
    elif what == "numel":  # every storage says how long it is: BININT1, BININT2 or BININT
        parts[pickled] = _other_numbers(chance, parts[pickled], chance.choice((1, 3, 1000)))
    elif what == "size":
        parts[pickled] = _other_numbers(chance, parts[pickled], 1)
    elif what == "bomb":
        compression = zipfile.ZIP_DEFLATED
        record = chance.choice([name for name in names if "/data/" in name])
        parts[record] = bytes(chance.choice((10**6, 10**8, 3 * 10**8)))
        what += f" {len(parts[record]):.0e}"
    elif what == "record":
        record = chance.choice(names)
        value = chance.choice((b"", b"x", None, parts[record][:-1], parts[record] * 2, b"9" * 5000))
        if value is None:
            del parts[record]
        else:
            parts[record] = value
        what += f" {record.rpartition('/')[2]}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, value in parts.items():
            archive.writestr(name, value)
        if what == "zip":
            archive.writestr(chance.choice(("../../x", "/etc/x", "archive/data/0", pickled)), b"x")
    return buffer.getvalue(), what


def _other_numbers(chance: random.Random, pickled: bytes, count: int) -> bytes:
    """Replace whole numbers of a pickle by others."""
    import pickletools

    found = [
        (place, opcode.name, argument)
        for opcode, argument, place in pickletools.genops(pickled)
        if opcode.name in ("BININT", "BININT1", "BININT2") and place is not None
    ]
    changed = bytearray(pickled)
    for place, _, _ in sorted(chance.sample(found, min(count, len(found))), reverse=True):
        size = {"K": 2, "M": 3, "J": 5}[chr(changed[place])]
        number = chance.choice((0, 1, 255, 10**6, 2**31 - 1, -1))
        changed[place : place + size] = b"J" + struct.pack("<i", number)
    return bytes(changed)


def in_old_pickle(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Change a file of torch.save from before it was an archive, or write a bare pickle."""
    what = chance.choice(("hostile", "bare", "bytes", "cut"))
    if what == "bytes":
        return other_bytes(chance, data), what
    if what == "cut":
        return cut(chance, data), what
    name = chance.choice(list(HOSTILE))
    content = HOSTILE[name]()
    if isinstance(content, bytes):
        return content, f"bare {name}"
    try:
        made = saved(content, old=True) if what == "hostile" else pickle.dumps(content)
    except Exception:  # not everything has a pickle of the kind
        return cut(chance, data), "cut"
    return made, f"{what} {name}"
