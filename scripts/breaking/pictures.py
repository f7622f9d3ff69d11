"""Mutated pictures: damaged, huge, of odd modes, of other kinds, and no files at all."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from breaking.guard import Case, Make
from tlora_cli.foundation.pictures import MAX_PIXELS
from tlora_cli.photos.training_images import load_training_images
from tlora_cli.training.report.embedded_images import see

SIDE = 48


def prepare(folder: Path, seed: int) -> Make:
    """Return what makes the cases; files go to `folder`."""
    samples = _samples()
    inside = folder / "case"

    def make(number: int) -> tuple[str, Case]:
        chance = random.Random(f"{seed} picture {number}")
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(parents=True)
        if chance.random() < 0.2:
            name = chance.choice(list(SPECIALS))
            file = SPECIALS[name](inside)
        else:
            sample = chance.choice(list(samples))
            change = chance.choice((_as_it_is, _bytes, _bytes, _cut, _size, _joined))
            name = f"{sample}, {change.__name__[1:]}"
            ending = chance.choice((sample.split()[0], sample.split()[0], "png", "jpg", "webp"))
            file = inside / f"a.{ending}"
            file.write_bytes(change(chance, samples[sample]))
        good = inside / "good.png"
        good.write_bytes(samples["png RGB"])
        cases: dict[str, Case] = {
            "picture": lambda: _load(str(file)),
            "list": lambda: _load([str(good), str(file)]),
            "folder": lambda: _load(str(inside)),
            "mask": lambda: _load(str(good), str(file)),
            "preview": lambda: _seen(file),
        }
        called = chance.choice(("picture", "picture", "list", "folder", "mask", "preview"))
        return f"{called}, {name}", cases[called]

    return make


def _load(images: str | list[str], masks: str | None = None) -> None:
    """Read pictures as training does; what it takes is what it says."""
    for image in load_training_images(images, masks, 32):
        assert image.pixels.shape == (3, 32, 32) and image.pixels.isfinite().all()
        assert image.pixels.abs().max() <= 1
        assert (image.mask is None) == (masks is None)


def _seen(file: Path) -> None:
    """Read a picture as a run's report does."""
    see(file)


# --- pictures to begin with -----------------------------------------------------------------------


def _samples() -> dict[str, bytes]:
    """Return a picture of each kind: ending, and what is special."""
    values = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE + 9, 4)).astype(np.uint8)
    color = Image.fromarray(values[:, :, :3])
    clear = Image.fromarray(values)
    found: dict[str, bytes] = {}

    def add(name: str, picture: Image.Image, **options: object) -> None:
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.split()[0], name.split()[0].upper())
        picture.save(buffer, format=kind, **options)
        found[name] = buffer.getvalue()

    for mode in ("RGB", "L", "1", "P"):
        add(f"png {mode}", color.convert(mode))
        add(f"tif {mode}", color.convert(mode))
        add(f"bmp {mode}", color.convert(mode))
    for mode in ("RGBA", "LA"):
        add(f"png {mode}", clear.convert(mode))
    add("png P transparent", color.convert("P"), transparency=3)
    add("png 16", Image.fromarray(values[:, :, 0].astype(np.uint16) * 257))
    add("png text", color, pnginfo=None, icc_profile=b"\0" * 200)
    for mode in ("RGB", "L", "CMYK"):
        add(f"jpg {mode}", color.convert(mode))
    add("jpg progressive", color, progressive=True)
    for orientation in (3, 6, 8, 200):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"jpg turned {orientation}", color, exif=exif.tobytes())
    add("png turned", color, exif=exif.tobytes())
    add("webp lossy", color)
    add("webp lossless", clear, lossless=True)
    for kind in ("webp", "gif", "png", "tif"):
        add(f"{kind} moving", color, save_all=True, append_images=[clear.convert("RGB"), color])
    for mode in ("F", "I", "I;16", "CMYK", "LAB", "YCbCr"):
        add(f"tif {mode}", color.convert("L").convert(mode) if mode in "I;16" else
            color.convert(mode))  # fmt: skip
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        picture = color.convert("1") if compression == "group4" else color
        add(f"tif {compression}", picture, compression=compression)
    add("png 1", Image.new("RGB", (1, 1)))
    add("png thin", Image.new("RGB", (1, 20_000)))
    add("jpg 1", Image.new("RGB", (1, 1)))
    add("webp 1", Image.new("RGBA", (1, 1)))
    return found


# --- mutations ------------------------------------------------------------------------------------


def _as_it_is(chance: random.Random, data: bytes) -> bytes:
    return data


def _bytes(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 8, 100))):
        reach = chance.choice((32, 300, len(data)))
        changed[min(chance.randrange(reach), len(data) - 1)] = chance.randrange(256)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _joined(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data))
    more = chance.choice((chance.randbytes(50), data[place // 2 : place], b"\0" * 5000))
    return data[:place] + more + data[place:]


def _size(chance: random.Random, data: bytes) -> bytes:
    """Claim another size where the format says it; PNG's checksum is made right."""
    side = chance.choice((0, 1, 2, 9_000, 13_000, 16_383, 60_000, 2**31 - 1, 2**32 - 1))
    other = chance.choice((0, 1, SIDE, side))
    changed = bytearray(data)
    if data.startswith(b"\x89PNG"):
        changed[16:24] = struct.pack(">II", side, other)
        if chance.random() < 0.3:
            changed[24:26] = bytes((chance.choice((1, 2, 4, 8, 16, 77)), chance.randrange(8)))
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    elif data.startswith(b"GIF"):
        changed[6:10] = struct.pack("<HH", side & 0xFFFF, other & 0xFFFF)
    elif data.startswith(b"BM"):
        changed[18:26] = struct.pack("<ii", side & 0x7FFFFFFF, other & 0x7FFFFFFF)
    elif data.startswith(b"\xff\xd8"):
        for mark in (b"\xff\xc0", b"\xff\xc2"):
            place = data.find(mark)
            if place > 0:
                changed[place + 5 : place + 9] = struct.pack(">HH", other & 0xFFFF, side & 0xFFFF)
    elif data[8:12] == b"WEBP":
        place = data.find(b"VP8X")
        if place > 0:
            changed[place + 12 : place + 18] = (
                struct.pack("<I", side)[:3] + struct.pack("<I", other)[:3]
            )
    elif data.startswith(b"II"):  # TIFF: any entry of the first directory
        (first,) = struct.unpack("<I", data[4:8])
        (count,) = struct.unpack("<H", data[first : first + 2])
        place = first + 2 + 12 * chance.randrange(count)
        changed[place + 8 : place + 12] = struct.pack("<I", side)
    return bytes(changed)


# --- what is no picture, or a bad joke ------------------------------------------------------------


def _png(width: int, height: int, color: int, depth: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    return data


def _bomb(color: int, depth: int, channels: int) -> Callable[[Path], Path]:
    """Return what writes the largest PNG that is taken, a small file of zeros."""

    def write(inside: Path) -> Path:
        side = int(MAX_PIXELS**0.5)
        packer = zlib.compressobj(9)
        row = bytes(1 + (side * channels * depth + 7) // 8)
        rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
        file = inside / "a.png"
        file.write_bytes(_png(side, side, color, depth, rows))
        return file

    return write


def _saved(kind: str, mode: str, **options: object) -> Callable[[Path], Path]:
    def write(inside: Path) -> Path:
        side = int(MAX_PIXELS**0.5)
        file = inside / f"a.{kind}"
        child = os.fork()  # the picture's own memory is not the reader's
        if child == 0:
            Image.MAX_IMAGE_PIXELS = None
            Image.new(mode, (side, side)).save(file, **options)
            os._exit(0)
        os.waitpid(child, 0)
        return file

    return write


def _made(name: str, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(inside: Path) -> Path:
        make(inside / name)
        return inside / name

    return write


TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06" + bytes(7)
PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(trap) (w) file closefile\nshowpage\n"

SPECIALS: dict[str, Callable[[Path], Path]] = {
    "bomb RGB": _bomb(2, 8, 3),
    "bomb RGBA": _bomb(6, 8, 4),
    "bomb gray": _bomb(0, 8, 1),
    "bomb gray 16": _bomb(0, 16, 1),
    "bomb gray and alpha": _bomb(4, 8, 2),
    "bomb bits": _bomb(0, 1, 1),
    "bomb RGBA 16": _bomb(6, 16, 4),
    "bomb JPEG": _saved("jpg", "RGB", quality=1),
    "bomb turned": _saved("jpg", "RGB", quality=1, exif=TURNED),
    "bomb CMYK": _saved("jpg", "CMYK", quality=1),
    "bomb GIF": _saved("gif", "L"),
    "bomb TIFF": _saved("tif", "RGB", compression="tiff_deflate"),
    "FIFO": _made("a.png", os.mkfifo),
    "folder": _made("a.png", Path.mkdir),
    "link to nothing": _made("a.png", lambda file: file.symlink_to("nothing.png")),
    "link to itself": _made("a.png", lambda file: file.symlink_to(file)),
    "link to zeros": _made("a.png", lambda file: file.symlink_to("/dev/zero")),
    "link to the system": _made("a.png", lambda file: file.symlink_to("/proc/self/mem")),
    "empty": _made("a.png", Path.touch),
    "text": _made("a.png", lambda file: file.write_text("hello")),
    "program": _made("a.png", lambda file: file.write_bytes(PROGRAM)),
    "SVG": _made(
        "a.png", lambda file: file.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    ),
    "zeros": _made("a.png", lambda file: file.write_bytes(bytes(10**7))),
    "odd name": _made("a\n\x1b[31m.png", Path.touch),
}
"""Name -> what makes the file."""
