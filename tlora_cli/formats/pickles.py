"""Look into a PyTorch file before torch reads it.

`torch.load(weights_only=True)` runs no code, but a file can still ask for all memory and time: by
records that unpack to gigabytes, byte arrays of any length, tuples of tuples that take years to
hash. And it leaves out the archive's checksums, so one wrong bit on the disk is a wrong weight.
Here a file passes only if it is what `torch.save` writes of tensors and plain values: few opcodes,
known names, sizes that are true, no compression, nothing damaged.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

PUTS, GETS = ("BINPUT", "LONG_BINPUT", "MEMOIZE"), ("BINGET", "LONG_BINGET")
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
OPCODES = {
    *PUTS,
    *GETS,
    *TUPLES,
    "PROTO",
    "FRAME",
    "STOP",
    "MARK",
    "EMPTY_DICT",
    "EMPTY_LIST",
    "EMPTY_TUPLE",
    "SETITEM",
    "SETITEMS",
    "APPEND",
    "APPENDS",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "GLOBAL",
    "STACK_GLOBAL",
    "REDUCE",
    "BUILD",
    "BINPERSID",
}
"""Opcodes that pickles of tensors consist of."""
STORAGES = {
    "UntypedStorage": 1,
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
"""Name -> bytes of an element."""
MAX_PICKLE = 64_000_000
"""Bytes of the pickle in an archive; the tensors' own bytes are elsewhere."""
MAX_OPCODES = 1_000_000
"""About 25,000 tensors."""
ZIP = b"PK\x03\x04"


class Storage(NamedTuple):
    """A storage as a pickle tells of it: its record, how many elements, bytes of each."""

    key: str
    length: int
    size: int


def check_archive(path: Path) -> None:
    """Raise a ValueError unless the file is a whole archive as torch.save writes it.

    Every record is compared with its checksum, which torch leaves out.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("it is not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any(one.compress_type != zipfile.ZIP_STORED for one in records):
                raise ValueError("a record is compressed; torch.save compresses nothing")
            if sum(one.file_size for one in records) > path.stat().st_size:
                raise ValueError("the records are larger than the file")
            if len({one.filename for one in records}) < len(records):
                raise ValueError("two records have the same name")
            if damaged := archive.testzip():
                raise ValueError(f"the record {damaged} is damaged")
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"the archive is damaged: {error}") from error


def check_tensors(path: Path) -> None:
    """Let pass only a file of tensors and plain values; run nothing, allocate little.

    Raises:
        pickle.UnpicklingError: if it holds anything else, such as code.
        Exception: any other, if it is damaged or lies of sizes.
    """
    with path.open("rb") as file:
        if file.read(4) == ZIP:
            check_archive(path)
            _check_records(path)
        else:
            file.seek(0)
            _check_stream(file, path.stat().st_size)


def _check_records(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        sizes = {one.filename: one.file_size for one in archive.infolist()}
        [name] = [name for name in sizes if name.endswith("/data.pkl")]
        if sizes[name] > MAX_PICKLE:
            raise ValueError("the pickle is too large")
        stored = _looked_into(io.BytesIO(archive.read(name)))
    for storage in stored:
        record = f"{name.removesuffix('data.pkl')}data/{storage.key}"
        if sizes[record] != storage.length * storage.size:
            raise ValueError(f"the record {record} is not as long as the pickle says")


def _check_stream(file: IO[bytes], size: int) -> None:
    """Check the older form: five pickles (the fourth is the content), then the storages."""
    for _ in range(5):
        for storage in _looked_into(file):
            if storage.length * storage.size > size:
                raise ValueError("a storage is longer than the file")
        if not file.read(1):  # a bare pickle
            return
        file.seek(-1, io.SEEK_CUR)


def _looked_into(file: IO[bytes]) -> list[Storage]:
    """Return the storages of the pickle that begins here, and go behind it."""
    begin = file.tell()
    _check_opcodes(file)
    end = file.tell()
    file.seek(begin)
    reader = _Reader(io.BytesIO(file.read(end - begin)))
    try:
        reader.load()
    except (TypeError, AttributeError) as error:  # something called that is no function here
        raise pickle.UnpicklingError(str(error)) from error
    return reader.storages


def _check_opcodes(file: IO[bytes]) -> None:
    """Refuse other opcodes, and values used twice that grow or reach far out when read again."""
    memo: list[str] = []
    last = ""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if number > MAX_OPCODES:
            raise ValueError("the pickle is too large")
        if name not in OPCODES:
            raise pickle.UnpicklingError(f"opcode {name}")
        if name in PUTS:
            place = len(memo) if name == "MEMOIZE" else argument
            if not isinstance(place, int) or place > len(memo):
                raise pickle.UnpicklingError("a place in the memo that is far away")
            memo[place : place + 1] = [last]
            continue
        # A tuple of one tuple twice, and so on, is small, but hashing it takes forever.
        if name in GETS and isinstance(argument, int) and memo[argument] in TUPLES:
            raise pickle.UnpicklingError("a tuple that is used twice")
        last = name


class _Reader(pickle.Unpickler):
    """Reads a pickle of tensors without them: stand-ins check the sizes."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: list[Storage] = []

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name, or refuse it."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in REBUILDERS:
            return REBUILDERS[module, name]
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _Kind(STORAGES[name])
        found = getattr(torch, name, None) if module == "torch" else None
        if isinstance(found, torch.dtype):
            return _Kind(found.itemsize)
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        """Return what is said of a storage."""
        word, kind, key, _, count, *_ = pid
        if word != "storage" or not isinstance(kind, _Kind):
            raise ValueError("it is no storage")
        if not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise ValueError("a storage without a name or a length")
        self.storages.append(Storage(key, count, kind.size))
        return self.storages[-1]


class _Kind:
    """Stands for a class of storages or a number format."""

    def __init__(self, size: int) -> None:
        self.size = size


def _tensor(
    storage: Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> None:
    """Stand for a tensor of its storage's number format."""
    _check_inside(storage.length, offset, size, stride)


def _tensor_of_format(
    storage: Storage, offset: int, size: Sequence[int], stride: Sequence[int], *more: Any
) -> None:
    """Stand for a tensor whose storage is bytes; the third of `more` is its number format."""
    _check_inside(storage.length * storage.size // more[2].size, offset, size, stride)


def _parameter(*_: Any) -> None:
    """Stand for a parameter; its tensor was checked."""


def _check_inside(count: int, offset: int, size: Sequence[int], stride: Sequence[int]) -> None:
    """Raise a ValueError if a tensor reaches out of its storage, or repeats what is there."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor without a shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= count or math.prod(size) > count):
        raise ValueError("a tensor is larger than its storage")


REBUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_format,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
"""Functions that torch.save makes tensors with, and what stands for them here."""
