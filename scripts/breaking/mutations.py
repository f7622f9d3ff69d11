"""Mutations of adapter files: lies in headers, numbers that are none, what lies beside them."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import yaml

from breaking.pickles import cut, in_archive, in_old_pickle, other_bytes

NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 2, 3, 2**31, 2**40, 2**62, 2**63, 2**64, 10**30, 1.5, 1e308, None, True, "x", [], {},
    float("nan"), float("inf"),
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", "x", "0", "-1", "2", "3", "64", "1000000000", "9" * 5000, "1e999", "nan", "inf", "null",
    "true", "[]", "{}", "[[0, 1e999]]", "[[0, Infinity]]", "[[0, 1], [1, 1]]", '[["a", "b"]]',
    "[" * 100_000, '{"a":' * 50_000, '{"r": 2}', "../../x", "/etc/passwd", "\u202e", "😀",
    "sdxl", "flux", "random", "step", "piecewise", "cosine", "constant", "reversed", "oft",
    "svdiff", "textual_inversion", "custom_diffusion", "dreambooth", "lora", "tlora", "a" * 300_000,
    '{"unet.r": 1e999}', '{"unet.lora_alpha": "x"}', '{"unet.r": 2, "unet.rank_pattern": {"(": 1}}',
    '{"unet.r": 2, "unet.rank_pattern": {"(.*.*)*x": 2, "((a|a)+)+$": 3}}',
    '{"unet.r": 2, "unet.lora_alpha": 2, "unet.alpha_pattern": {"((.+)+)+y": 2}}',
    '{"unet.r": 2, "unet.rank_pattern": {"a{99999999999999999999}": 2}}',
    '{"unet.r": 2, "unet.rank_pattern": 3}', '{"unet.r": 2, "unet.use_rslora": "no"}',
)  # fmt: skip
"""Texts that stand in place of a header's."""

Files = dict[str, bytes]
"""Name -> contents: the adapter and what lies beside it."""


def mutate(chance: random.Random, files: Files, name: str) -> str:
    """Change the files in place; return what was done."""
    main_file = next(iter(files))
    beside = [file for file in files if file != main_file]
    if beside and chance.random() < 0.3:
        file = chance.choice(beside)
        return f"{file} " + _beside(chance, files, file)
    data = files[main_file]
    if chance.random() < 0.15:
        change = chance.choice((other_bytes, cut, grown))
        files[main_file] = change(chance, data)
        return change.__name__
    if main_file.endswith(".safetensors"):
        files[main_file], done = _header(chance, data)
    elif main_file.endswith(".pt"):
        files[main_file], done = in_archive(chance, data)
    else:
        files[main_file], done = in_old_pickle(chance, data)
    return done


def grown(chance: random.Random, data: bytes) -> bytes:
    more = chance.choice((b"x", b"\0" * 1000, data))
    return data + more if chance.random() < 0.5 else more + data


def _beside(chance: random.Random, files: Files, file: str) -> str:
    """Change adapter_config.json or hparams.yml."""
    what = chance.randrange(6)
    if what == 0:
        del files[file]
        return "gone"
    if what == 1:
        files[file] = other_bytes(chance, files[file])
        return "bytes"
    if what == 2:
        files[file] = chance.choice(
            (
                b"",
                b"3",
                b"[]",
                b"[" * 100_000,
                b'{"a":' * 100_000,
                b"\xff\xfe",
                b"!!python/object/apply:os.system ['touch trap']",
                b"\n".join(
                    [b"a0: &a0 [x, x]"]
                    + [b"a%d: &a%d [*a%d, *a%d]" % (n, n, n - 1, n - 1) for n in range(1, 40)]
                    + [b"class_name: *a39\ntlora: true\nrank: 2\ntrainer_class: sdxl_tlora"]
                ),
                b"- " * 100_000,
            )
        )
        return "another file"
    values = yaml.safe_load(files[file])
    key = chance.choice(list(values))
    if what == 3:
        del values[key]
        done = f"without {key}"
    else:
        values[key] = chance.choice((*NUMBERS, *TEXTS[:30], {"(.*.*.*.*)*x": 2, "((a|.)+)+$": 3}))
        done = f"another {key}"
    kept = json.dumps(values) if file.endswith(".json") else yaml.safe_dump(values)
    files[file] = kept.encode()
    return done


def _header(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Lie in the header of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    what = chance.choice(
        ("text", "text", "text", "field", "field", "numbers", "name", "empty", "length", "twice",
         "drop", "swap", "deep", "shape")
    )  # fmt: skip
    names = [key for key in header if key != "__metadata__"]
    name = chance.choice(names)
    metadata = header.setdefault("__metadata__", {})
    if what == "text" and metadata:
        key = chance.choice([*metadata, "lora_adapter_metadata", "tlora.format_version"])
        metadata[key] = chance.choice(TEXTS)
        what += f" {key}"
    elif what == "field":
        key = chance.choice(("dtype", "shape", "data_offsets"))
        header[name][key] = chance.choice(
            (
                *NUMBERS,
                *([a, b] for a in NUMBERS[:11] for b in NUMBERS[:11]),
                *("F64", "F16", "BF16", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "F8_E8M0"),
            )
        )
        what += f" {key}"
    elif what == "numbers":
        kind = chance.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f"))
        start = header[name]["data_offsets"][0]
        body[start : start + 4] = kind
    elif what == "name":
        new = chance.choice(
            ("", "../../x", "a" * 100_000, "😀", f"{name}x", name.replace("lora_A", "lora_C"),
             name.replace(".0.", ".99999999999999999999."), name.replace("weight", "bias"),
             name.upper(), f"lora_unet_{'a_' * 5000}.lora_down.weight", f"{name}.alpha",
             "text_encoder.x.lora_A.weight", "text_encoder.tlora.vector", f"{'a.' * 20_000}lora_A.")
        )  # fmt: skip
        header[new] = header.pop(name)
    elif what == "empty":
        spot = header[name]["data_offsets"]
        lost = spot[1] - spot[0]
        del body[spot[0] : spot[1]]
        for other in names:
            offsets = header[other]["data_offsets"]
            if offsets[0] >= spot[1]:
                header[other]["data_offsets"] = [offset - lost for offset in offsets]
        header[name]["data_offsets"] = [spot[0], spot[0]]
        header[name]["shape"] = chance.choice(
            ([0], [0, 5], [5, 0], [2**40, 0], [0, 2**40], [0] * 9)
        )
    elif what == "shape":
        shape = header[name]["shape"]
        whole = (spot := header[name]["data_offsets"])[1] - spot[0]
        header[name]["shape"] = chance.choice(
            (
                [whole // 4],
                [1, whole // 4],
                [whole // 4, 1],
                shape[::-1],
                [*shape, 1, 1],
                [1, *shape],
            )
        )
    elif what == "twice":
        text = json.dumps(header)
        more = json.dumps({name: header[name]})[1:-1]
        return _packed(text[:-1] + ", " + more + "}", body), what
    elif what == "drop":
        del header[name]
    elif what == "swap":
        other = chance.choice(names)
        header[name], header[other] = header[other], header[name]
    elif what == "deep":
        deep = chance.choice((100, 100_000))
        return _packed('{"a":' * deep + "1" + "}" * deep, body), what
    text = json.dumps(header)
    if what == "length":
        lie = chance.choice((0, 1, length - 1, length + 1, 2**31, 2**32, 2**62, 2**64 - 1, 10**8))
        return struct.pack("<Q", lie) + text.encode() + body, what
    return _packed(text, body), what


def _packed(header: str, body: bytes | bytearray) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + bytes(body)
