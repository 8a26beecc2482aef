"""Our ``.tflite`` files, with bytes changed: mostly in the tables, often with a new digest."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import torch

from conftest import SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError
from efquantface.formats.litert.model import to_litert
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Bits, Scheme
from efquantface.runtime.litert_file import litert_contract, parse, sealed
from fuzz.mutate import edge, mutate_bytes
from fuzz.target import Files, Target

_SIZE = 16
_CONTRACT = FaceContract(_SIZE, _SIZE, 16, template="unknown")
_NAME = "m.tflite"


def _seeds(folder: Path) -> list[Files]:
    """A float network, and students with 8 and 4 bits."""
    teacher = load_model(randomize(SmallFaceNet(size=_SIZE)), contract=_CONTRACT)
    pixels = torch.from_numpy(_CONTRACT.pixels(make_faces(2, 2, size=_SIZE).images))
    made = [{_NAME: to_litert(teacher)}]
    for bits in ("w8a8", "w4a4"):
        student = quantize(teacher, Scheme(Bits.parse(bits)))
        set_ranges(student.graph, [pixels])
        made.append({_NAME: to_litert(student)})
    return made


def _read(folder: Path) -> None:
    contract = litert_contract(folder / _NAME)
    model = parse((folder / _NAME).read_bytes(), _NAME)
    assert model.tensors[model.ends[0]].shape == (1, contract.height, contract.width, 3)
    assert all(0 <= i < len(model.tensors) for o in model.operations for i in o.inputs)


def _change(files: Files, draw: Random) -> Files:
    data = bytearray(files[_NAME])
    if draw.random() < 0.2:
        return {_NAME: mutate_bytes(bytes(data), draw)}
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(0, len(data) - 4, 2)
        if draw.random() < 0.5:  # offsets, slots, counts and indices
            data[at : at + 4] = edge(draw, 4)
        else:
            (value,) = struct.unpack_from("<I", data, at)
            value += draw.choice((1, -1, 4, -4, 256, 65536))
            struct.pack_into("<I", data, at, value % 2**32)
    try:
        return {_NAME: sealed(bytes(data), _NAME)}
    except (ModelFileError, KeyError):
        return {_NAME: bytes(data)}


TARGETS = (Target("tflite", _seeds, _read, _change, short=600),)
