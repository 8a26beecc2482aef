"""Readers of ONNX files (changed field by field), dlib's file and packs of networks."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, helper

from conftest import SmallFaceNet, randomize
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.contracts import opened
from efquantface.importers.load import load_model
from efquantface.importers.packs import open_pack
from face_files import backbone, dense, drawn, node, save
from fuzz.mutate import mutate_bytes
from fuzz.target import Files, Target

_SIZE = 16
_CONTRACT = FaceContract(_SIZE, _SIZE, 16, template="unknown")
_KINDS = (
    *(
        "Relu",
        "Add",
        "Mul",
        "Concat",
        "Reshape",
        "Transpose",
        "Slice",
        "Pad",
        "Resize",
        "Split",
        "Tile",
    ),
    *(
        "Expand",
        "Gather",
        "Softmax",
        "ReduceMean",
        "Squeeze",
        "If",
        "ConstantOfShape",
        "Shape",
        "class",
    ),
)
_NUMBERS = (0, 1, -1, 2, 3, 7, 100, 1000, 100_000, 10**6, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))


def onnx_seeds(folder: Path) -> list[Files]:
    """A student of ours, and small files with moves, constant branches and both orders of axes."""
    network = load_model(randomize(SmallFaceNet(size=_SIZE)), contract=_CONTRACT)
    write_onnx(network, folder / "own.onnx")
    nodes, weights = backbone()
    end, more = dense("map", "out")
    save(folder / "plain.onnx", [*nodes, *end], {**weights, **more})
    moved = [
        *nodes,
        node("Transpose", ["map"], "t", perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "flat"], "r"),
        node("Slice", ["r", "zero", "many", "one"], "s"),
        node("Constant", [], "two", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])),
        node("Mul", ["s", "two"], "m"),
        node("MatMul", ["m", "mw"], "e"),
        node("LpNormalization", ["e"], "out", axis=1, p=2),
    ]
    extra = {
        "flat": np.array([0, 24 * 16], np.int64),
        "zero": np.array([0], np.int64),
        "many": np.array([2**31], np.int64),
        "one": np.array([1], np.int64),
        "mw": drawn(24 * 16, 24, seed=5),
    }
    save(folder / "moved.onnx", moved, {**weights, **extra})
    stem = onnx.NodeProto()
    stem.CopyFrom(nodes[0])
    stem.input[0] = "p"
    grown = [
        node("Pad", ["in", "pads"], "p"),
        stem,
        *nodes[1:],
        node("ConstantOfShape", ["shape"], "z"),
        node("Expand", ["z", "shape"], "zz"),
        node("Add", ["map", "zz"], "a"),
        *dense("a", "out")[0],
    ]
    sizes = {"pads": np.zeros(8, np.int64), "shape": np.array([1, 24, 1, 1], np.int64)}
    save(folder / "grown.onnx", grown, {**weights, **more, **sizes})
    made = ("own", "plain", "moved", "grown")
    files = [{"n.onnx": (folder / f"{name}.onnx").read_bytes()} for name in made]
    return [f for f in files if _is_read(folder, f)]


def _is_read(folder: Path, files: Files) -> bool:
    path = folder / "n.onnx"
    path.write_bytes(files["n.onnx"])
    load_model(path)
    return True


def _read_onnx(folder: Path) -> None:
    model = load_model(folder / "n.onnx")
    contract = model.contract
    pixels = torch.zeros(1, 3, contract.height, contract.width)
    rows = model.embed_pixels(pixels)
    assert rows.shape == (1, contract.embedding_size), tuple(rows.shape)


def _read_facts(folder: Path) -> None:
    contract, facts = opened(folder / "n.onnx")
    assert facts is not None
    assert contract.height > 0


def _change_onnx(files: Files, draw: Random) -> Files:
    data = files["n.onnx"]
    if draw.random() < 0.15:
        return {"n.onnx": mutate_bytes(data, draw)}
    model = onnx.load_model_from_string(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        try:
            _change_field(model, draw)
        except (TypeError, ValueError):
            continue  # the field does not take this value
    try:
        return {"n.onnx": model.SerializeToString()}
    except (EncodeError, DecodeError, ValueError):
        return files


def _change_field(model: Any, draw: Random) -> None:
    """Change one field of one message anywhere in the model."""
    messages = list(_messages(model))
    message = draw.choice(messages)
    fields = [f for f, _ in message.ListFields()] or list(message.DESCRIPTOR.fields)
    if draw.random() < 0.1:
        fields = list(message.DESCRIPTOR.fields)
    field = draw.choice(fields)
    value = getattr(message, field.name)
    how = draw.random()
    if field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED:
        _change_list(value, field, draw)
    elif how < 0.3:
        message.ClearField(field.name)
    elif field.type == field.TYPE_MESSAGE:
        others = [m for m in messages if m.DESCRIPTOR is value.DESCRIPTOR]
        if others:
            copied = type(value)()  # it may contain the message that it is put into
            copied.CopyFrom(draw.choice(others))
            value.CopyFrom(copied)
    else:
        setattr(message, field.name, _other(value, field, messages, draw))


def _change_list(values: Any, field: Any, draw: Random) -> None:
    how, size = draw.random(), len(values)
    if size and how < 0.35:
        del values[draw.randrange(size)]
    elif field.type == field.TYPE_MESSAGE:
        if size:
            values.add().CopyFrom(draw.choice(list(values)))
    elif size and how < 0.85:
        place = draw.randrange(size)
        values[place] = _other(values[place], field, [], draw)
    elif size:
        values.append(draw.choice(list(values)))
    else:
        values.append(_other(0, field, [], draw))


def _other(value: Any, field: Any, messages: list[Any], draw: Random) -> Any:
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return draw.choice((0.0, 1e30, -1.0, float("nan"), float("inf"), 0.5))
    if field.type == field.TYPE_BYTES:
        return mutate_bytes(value or b"", draw)
    if field.type == field.TYPE_STRING:
        names = [getattr(m, "name", "") for m in messages]
        return draw.choice((*_KINDS, *(n for n in names if n), "", "x" * 300))
    if isinstance(value, str):
        return draw.choice(("", "in", "map", "x"))
    return draw.choice((*_NUMBERS, value + 1 if isinstance(value, int) else 1, draw.randrange(20)))


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for inner in value if hasattr(value, "__len__") else (value,):
            yield from _messages(inner)


# --- dlib


def _integer(value: int) -> bytes:
    size = max((abs(value).bit_length() + 7) // 8, 1)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def _real(value: float) -> bytes:
    mantissa, exponent = math.frexp(value)
    return _integer(int(mantissa * 2**24)) + _integer(exponent - 24)


def _string(text: str) -> bytes:
    return _integer(len(text)) + text.encode()


def _tensor(*values: float, shape: tuple[int, ...] | None = None) -> bytes:
    sizes = shape or (len(values), 1, 1, 1) if values else (0, 0, 0, 0)
    return b"".join(map(_integer, (2, *sizes))) + np.asarray(values, "<f4").tobytes()


def _alias(*sizes: int) -> bytes:
    return b"".join(map(_integer, (1, *sizes)))


def _layer(name: str, body: bytes = b"") -> bytes:
    return _string(name) + body + b"000" + _tensor() * 3


def _numbers(*values: int) -> bytes:
    return b"".join(map(_integer, values))


def _conv(filters: int, channels: int, side: int, stride: int, pad: int) -> bytes:
    count = filters * channels * side * side
    values = drawn(count + filters)
    multipliers = _real(1.0) * 4
    return (
        _tensor(*values)
        + _numbers(filters, side, side, stride, stride, pad, pad)
        + _alias(filters, channels, side, side)
        + _alias(1, filters, 1, 1)
        + multipliers
    )


def _affine(channels: int) -> bytes:
    values = [1.0] * channels + [0.0] * channels
    return _tensor(*values) + _alias(1, channels, 1, 1) * 2 + _integer(0)


def dlib_file() -> bytes:
    """A network of one block, 4 channels and embeddings of 16 values, as dlib serializes it."""
    pool = ("max_pool_2", _numbers(3, 3, 2, 2, 0, 0))
    fc = _numbers(16, 4) + _tensor(*drawn(64)) + _alias(4, 16, 1, 1) + _alias(0, 0, 0, 0)
    layers = [
        ("con_4", _conv(4, 3, 3, 2, 0)),
        ("affine_", _affine(4)),
        ("relu_", b""),
        pool,
        ("con_4", _conv(4, 4, 3, 1, 1)),
        ("affine_", _affine(4)),
        ("relu_", b""),
        ("con_4", _conv(4, 4, 3, 1, 1)),
        ("affine_", _affine(4)),
        ("add_prev_", b""),
        ("relu_", b""),
        ("avg_pool_2", _numbers(0, 0, 1, 1, 0, 0)),
        ("fc_2", fc + _integer(1) + _real(1.0) * 4),
    ]
    header = b"".join(_integer(2) for _ in layers[1:]) + _integer(3)
    image = _string("input_rgb_image_sized") + b"".join(map(_real, (122.0, 117.0, 104.0)))
    first, *others = (_layer(name, body) for name, body in layers)
    start = _integer(1) + _string("loss_metric_2") + _real(0.04) + _real(0.6)
    return start + header + image + _numbers(32, 32) + first + _integer(1) + b"".join(others)


def _dlib_seeds(folder: Path) -> list[Files]:
    return [{"n.dat": dlib_file()}]


def _read_dlib(folder: Path) -> None:
    model = load_model(folder / "n.dat")
    side = model.contract.height
    rows = model.embed_pixels(torch.zeros(1, 3, side, side))
    assert rows.shape == (1, model.contract.embedding_size)


# --- packs


def _pack_seeds(folder: Path) -> list[Files]:
    network = onnx_seeds(folder)[1]["n.onnx"]
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(folder / "p.zip", "w", method) as archive:
            archive.writestr("pack/w600k.onnx", network)
            archive.writestr("pack/notes.txt", "of a detector and a recognizer")
        made.append({"pack.zip": (folder / "p.zip").read_bytes()})
    return made


def _read_pack(folder: Path) -> None:
    assert open_pack(folder / "pack.zip").recognizer.is_file()


def _change_pack(files: Files, draw: Random) -> Files:
    data = files["pack.zip"]
    if draw.random() < 0.6:  # the table at the end has all offsets
        end = max(data.rfind(b"PK\x01\x02") - 60, 0)
        return {"pack.zip": data[:end] + mutate_bytes(data[end:], draw)}
    return {"pack.zip": mutate_bytes(data, draw)}


TARGETS = (
    Target("onnx", onnx_seeds, _read_onnx, _change_onnx, short=250, seconds=10, megabytes=2048),
    Target(
        "onnx-facts", onnx_seeds, _read_facts, _change_onnx, short=250, seconds=10, megabytes=2048
    ),
    Target("dlib", _dlib_seeds, _read_dlib, short=600),
    Target("pack", _pack_seeds, _read_pack, _change_pack, short=400),
)
