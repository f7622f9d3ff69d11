"""Mutated adapter files: lies in headers, hostile pickles, bombs, numbers that are none."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from make_tiny_models import write_tiny_flux, write_tiny_sdxl
from safetensors.torch import load_file, save
from torch import Tensor, nn

from breaking.guard import Case, Make
from tlora_cli import attach, load_adapter
from tlora_cli.cli.app import main
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import AdapterInfo, read_adapter, read_origin
from tlora_cli.tools.convert import convert_file

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


def prepare(folder: Path, seed: int) -> Make:
    """Return what makes the cases; files go to `folder`."""
    bases, models = {}, {}
    for family, write, kind, part in (
        ("sdxl", write_tiny_sdxl, UNet2DConditionModel, "unet"),
        ("flux", write_tiny_flux, FluxTransformer2DModel, "transformer"),
    ):
        bases[family] = folder / f"tiny-{family}"
        if not bases[family].exists():
            write(bases[family])
        models[family] = kind.from_pretrained(bases[family], subfolder=part)
    samples = _samples(models, folder, bases)
    meta = {family: _linears(meta_denoiser(family, str(bases[family]))) for family in bases}
    inside = folder / "case"

    def make(number: int) -> tuple[str, Case]:
        chance = random.Random(f"{seed} adapter {number}")
        name = chance.choice(list(samples))
        files = dict(samples[name])
        family = "flux" if "flux" in name else "sdxl"
        done = _mutate(chance, files, name)
        shutil.rmtree(inside, ignore_errors=True)
        for file, data in files.items():
            (inside / file).parent.mkdir(parents=True, exist_ok=True)
            (inside / file).write_bytes(data)
        path = inside / next(iter(files))
        output = inside / "out.safetensors"
        cases: dict[str, Case] = {
            "origin": lambda: _origin(path),
            "read": lambda: _read(path, meta[family]),
            "load": lambda: _load(path, models[family], chance),
            "convert": lambda: _convert(path, inside, family, bases[family], chance),
            "command": lambda: _command(path, output, bases[family]),
        }
        called = chance.choice(("origin", "read", "load", "load", "convert", "convert", "command"))
        return f"{called}, {name}, {done}", cases[called]

    return make


def _linears(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


# --- what is done with a file ---------------------------------------------------------------------


def _origin(path: Path) -> None:
    read_origin(path)


def _read(path: Path, layers: dict[str, nn.Module]) -> None:
    weights = read_adapter(path, layers)
    for down, up in weights.layers.values():
        assert down.isfinite().all() and up.isfinite().all(), "the factors are not finite"


def _load(path: Path, model: nn.Module, chance: random.Random) -> None:
    """Put it on a model and take it off again."""
    min_rank = chance.choice((None, 1, 2))
    trainable = chance.random() < 0.3
    load_adapter(model, path, min_rank=min_rank, trainable=trainable).remove()


def _convert(path: Path, inside: Path, family: str, base: Path, chance: random.Random) -> None:
    to = chance.choice(("tlora", "kohya", "comfyui"))
    output = inside / ("out" if to == "comfyui" else "out.safetensors")
    min_rank = chance.choice((None, 1, 2))
    stated = chance.choice((None, family))
    convert_file(path, output, stated, str(base), min_rank, chance.choice((None, 2.0)), {}, to)
    written = [output] if output.is_file() else list(output.glob("*.safetensors"))
    assert written, "nothing was written"
    for file in written:
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file


def _command(path: Path, output: Path, base: Path) -> None:
    sys.argv = ["tlora", "convert", str(path), "--output", str(output), "--base", str(base)]
    status = main()
    assert status in (0, 2, 3), f"exit status {status}"
    assert status or output.exists()


# --- files to begin with --------------------------------------------------------------------------


def _samples(
    models: dict[str, nn.Module], folder: Path, bases: dict[str, Path]
) -> dict[str, Files]:
    """Return whole files of every format."""
    found: dict[str, Files] = {}
    for family, model in models.items():
        for method, sizes in (
            ("lora", {"rank": 2}), ("tlora", {"rank": 3}), ("oft", {"blocks": 2}), ("svdiff", {}),
        ):  # fmt: skip
            file = folder / "sample.safetensors"
            info = AdapterInfo(placeholder="sks", class_name="dog", base_model="b", seed=1)
            adapter = attach(model, method, info=info, **sizes)
            _move(adapter)
            adapter.save(file)
            adapter.remove()
            found[f"{method} {family}"] = {"a.safetensors": file.read_bytes()}
            if method in ("lora", "tlora"):
                other = folder / "other.safetensors"
                other.unlink(missing_ok=True)
                convert_file(file, other, None, str(bases[family]), None, None, {}, "kohya")
                found[f"kohya {method} {family}"] = {"a.safetensors": other.read_bytes()}
            if method == "lora":
                found |= _foreign(load_file(file), family)
    return found


def _move(adapter: Any) -> None:
    """Make every tensor non-zero, as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)


def _foreign(tensors: dict[str, Tensor], family: str) -> dict[str, Files]:
    """Return a plain LoRA in PEFT's and in the published names."""
    part = {"sdxl": "unet.", "flux": "transformer."}[family]
    bare = {key.removeprefix(part): tensor for key, tensor in tensors.items()}
    config = {"r": 2, "lora_alpha": 4, "rank_pattern": {r".*to_q": 2}, "alpha_pattern": {}}
    peft = {f"base_model.model.{key}": tensor for key, tensor in bare.items()}
    published = {}
    for key, tensor in bare.items():
        layer, _, side = key.removesuffix(".weight").rpartition(".")
        attention, _, projection = layer.removesuffix(".0").rpartition(".")
        name = {"add_q_proj": "to_q_proj", "add_k_proj": "to_k_proj", "add_v_proj": "to_v_proj"}
        projection = name.get(projection, projection)
        where = {"lora_A": "down", "lora_B": "up"}[side]
        if projection != "to_add_out":
            published[f"{attention}.processor.{projection}_lora.{where}.weight"] = tensor
    hparams = {
        "trainer_class": "sdxl_tlora", "tlora": True, "lora_rank": 2, "rank": 2, "min_rank": 1,
        "alpha_rank_scale": 1.0, "seed": 0, "placeholder_token": "sks", "class_name": "dog",
        "pretrained_model_name_or_path": "b", "sig_type": "last",
    }  # fmt: skip
    beside = {"logs/hparams.yml": yaml.safe_dump(hparams).encode()}
    return {
        f"peft {family}": {
            "adapter_model.safetensors": save(peft),
            "adapter_config.json": json.dumps(config).encode(),
        },
        f"published {family}": {"lora.pt": _saved(published), **beside},
        f"published safetensors {family}": {
            "pytorch_lora_weights.safetensors": save(published), **beside,
        },
        f"old pickle {family}": {"lora.bin": _saved(published, old=True), **beside},
    }  # fmt: skip


def _saved(content: Any, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


# --- mutations ------------------------------------------------------------------------------------


def _mutate(chance: random.Random, files: Files, name: str) -> str:
    """Change the files in place; return what was done."""
    main_file = next(iter(files))
    beside = [file for file in files if file != main_file]
    if beside and chance.random() < 0.3:
        file = chance.choice(beside)
        return f"{file} " + _beside(chance, files, file)
    data = files[main_file]
    if chance.random() < 0.15:
        change = chance.choice((_bytes, _cut, _grown))
        files[main_file] = change(chance, data)
        return change.__name__[1:]
    if main_file.endswith(".safetensors"):
        files[main_file], done = _header(chance, data)
    elif main_file.endswith(".pt"):
        files[main_file], done = _archive(chance, data)
    else:
        files[main_file], done = _old_pickle(chance, data)
    return done


def _bytes(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 4, 60))):
        where = chance.randrange(chance.choice((64, 4000, len(data))))
        changed[min(where, len(data) - 1)] = chance.randrange(256)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.choice((0, 1, 7, 8, 9, 100, len(data) - 1, chance.randrange(len(data))))]


def _grown(chance: random.Random, data: bytes) -> bytes:
    more = chance.choice((b"x", b"\0" * 1000, data))
    return data + more if chance.random() < 0.5 else more + data


def _beside(chance: random.Random, files: Files, file: str) -> str:
    """Change adapter_config.json or hparams.yml."""
    what = chance.randrange(6)
    if what == 0:
        del files[file]
        return "gone"
    if what == 1:
        files[file] = _bytes(chance, files[file])
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


def _archive(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Change a file of torch.save, a ZIP archive."""
    what = chance.choice(("hostile", "hostile", "pickle", "numel", "size", "bomb", "zip", "record"))
    if what == "hostile":
        name = chance.choice(list(HOSTILE))
        content = HOSTILE[name]()
        if not isinstance(content, bytes):
            return _saved(content), f"{what} {name}"
        what += f" {name}"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    names = list(parts)
    pickled = next(name for name in names if name.endswith("data.pkl"))
    compression = zipfile.ZIP_STORED
    if what.startswith("hostile"):
        parts[pickled] = content
    elif what == "pickle":
        parts[pickled] = _bytes(chance, parts[pickled])
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


def _old_pickle(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Change a file of torch.save from before it was an archive, or write a bare pickle."""
    what = chance.choice(("hostile", "bare", "bytes", "cut"))
    if what == "bytes":
        return _bytes(chance, data), what
    if what == "cut":
        return _cut(chance, data), what
    name = chance.choice(list(HOSTILE))
    content = HOSTILE[name]()
    if isinstance(content, bytes):
        return content, f"bare {name}"
    try:
        made = _saved(content, old=True) if what == "hostile" else pickle.dumps(content)
    except Exception:  # not everything has a pickle of the kind
        return _cut(chance, data), "cut"
    return made, f"{what} {name}"
