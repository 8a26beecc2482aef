"""Readers of students, PyTorch checkpoints, a run's state, the generator's weights, caches."""

from __future__ import annotations

import functools
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from conftest import SmallFaceNet, make_faces, randomize
from efquantface import assets
from efquantface.contract import FaceContract
from efquantface.data.synthetic import LATENT, load_generator
from efquantface.distill.state import read_state, write_state
from efquantface.embedding.cache import read_cached, write_cached
from efquantface.errors import AssetError
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.importers.load import load_model
from efquantface.importers.state_dicts import read_dictionaries
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Bits, Scheme
from fuzz.mutate import edge, mutate_bytes, mutate_plain
from fuzz.pickled import mutate_pickle
from fuzz.target import Files, Target

_SIZE = 16
_CONTRACT = FaceContract(_SIZE, _SIZE, 16, template="unknown")
_TOTAL = 100


# --- students


def _student_seeds(folder: Path) -> list[Files]:
    teacher = load_model(randomize(SmallFaceNet(size=_SIZE)), contract=_CONTRACT)
    pixels = torch.from_numpy(_CONTRACT.pixels(make_faces(2, 2, size=_SIZE).images))
    made = []
    for bits in (None, "w8a8", "w4a4"):
        model = teacher
        if bits:
            model = quantize(teacher, Scheme(Bits.parse(bits)))
            set_ranges(model.graph, [pixels])
        save_checkpoint(model, folder / "s.safetensors")
        made.append({"s.safetensors": (folder / "s.safetensors").read_bytes()})
    return made


def _read_student(folder: Path) -> None:
    model = load_model(folder / "s.safetensors")
    contract = model.contract
    rows = model.embed_pixels(torch.zeros(1, 3, contract.height, contract.width))
    assert rows.shape == (1, contract.embedding_size), tuple(rows.shape)


def _change_student(files: Files, draw: Random) -> Files:
    data = files["s.safetensors"]
    if draw.random() < 0.15:
        return {"s.safetensors": mutate_bytes(data, draw)}
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    if draw.random() < 0.2:
        header = mutate_plain(header, draw)
    else:
        key = draw.choice(sorted(header["__metadata__"]))
        header["__metadata__"][key] = mutate_plain(header["__metadata__"][key], draw)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return {"s.safetensors": struct.pack("<Q", len(text)) + text + data[8 + size :]}


# --- checkpoints of PyTorch


@functools.cache
def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"layer{i}.weight": torch.randn(3, 4) for i in range(6)}


def _stored(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _weight_seeds(folder: Path) -> list[Files]:
    plain = _weights()
    training = {
        "epoch": 3,
        "state_dict": {f"module.{k}": v.half() for k, v in plain.items()},
        "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    nested = {
        "net": {"a": plain},
        "names": ["a", "b"],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    contents = (plain, training, nested)
    made = [{"w.pth": _stored(content)} for content in contents]
    made += [{"w.pth": _stored(c, _use_new_zipfile_serialization=False)} for c in contents[:2]]
    return [*made, {"w.safetensors": save_safetensors(plain)}]


def _read_weights(folder: Path) -> None:
    path = next(folder.iterdir())
    for tensors in read_dictionaries(path).values():
        held = sum(t.numel() * t.element_size() for t in tensors.values())
        assert held <= 20 * path.stat().st_size + (1 << 20), held


def _change_weights(files: Files, draw: Random) -> Files:
    (name,) = files
    return {name: change_stored(files[name], draw)}


def change_stored(data: bytes, draw: Random) -> bytes:
    """A file of ``torch.save`` with its pickle, its members or its bytes changed."""
    if draw.random() < 0.15:
        return mutate_bytes(data, draw)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        if data[8:9] == b"{":  # safetensors
            (size,) = struct.unpack("<Q", data[:8])
            text = json.dumps(mutate_plain(json.loads(data[8 : 8 + size]), draw)).encode()
            return struct.pack("<Q", len(text)) + text + data[8 + size :]
        return mutate_pickle(data, draw) if draw.random() < 0.5 else mutate_bytes(data, draw, 600)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = next(n for n in members if n.endswith("data.pkl"))
    if draw.random() < 0.25:
        chosen = draw.choice(sorted(members))
        how = draw.random()
        if how < 0.2:
            del members[chosen]
        elif how < 0.4:
            members[chosen] = bytes(1 << 22) if draw.random() < 0.1 else members[chosen] * 2
        else:
            members[chosen] = mutate_bytes(members[chosen], draw)
    else:
        members[chosen] = mutate_pickle(members[chosen], draw)
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if draw.random() < 0.2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    made = stream.getvalue()
    if draw.random() < 0.1:  # sizes in the archive's table at the end
        at = made.rfind(b"PK\x01\x02") + draw.choice((20, 24, 42))
        made = made[:at] + edge(draw, 4) + made[at + 4 :]
    return made


# --- state of a run, the generator's weights, cached embeddings


def _state_seeds(folder: Path) -> list[Files]:
    state = {
        "total": _TOTAL,
        "devices": 1,
        "microbatch": 8,
        "step": 10,
        "student": _weights(),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}},
        "history": [0.5, 0.25],
        "random": torch.zeros(16, dtype=torch.uint8),
    }
    write_state(folder / "state.pt", state)
    return [{"state.pt": (folder / "state.pt").read_bytes()}]


def _read_state(folder: Path) -> None:
    found = read_state(folder / "state.pt", _TOTAL)
    assert isinstance(found["microbatch"], int)


def _change_state(files: Files, draw: Random) -> Files:
    return {"state.pt": change_stored(files["state.pt"], draw)}


def _generator_seeds(folder: Path) -> list[Files]:
    stored: dict[str, torch.Tensor] = {}
    channels = LATENT
    for index, width in enumerate((512, 256, 128, 64, 3)):
        at = 3 * index
        stored[f"main.{at}.weight"] = torch.zeros(channels, width, 4, 4)
        if width > 3:
            for name in ("weight", "bias", "running_mean", "running_var"):
                stored[f"main.{at + 1}.{name}"] = torch.ones(width)
            stored[f"main.{at + 1}.num_batches_tracked"] = torch.tensor(1)
        channels = width
    return [{"weights.tar": _stored({"netG_state_dict": stored})}]


def _read_generator(folder: Path) -> None:
    made = load_generator(folder / "weights.tar")(torch.zeros(1, LATENT, 1, 1))
    assert made.shape == (1, 3, 64, 64)


def _change_generator(files: Files, draw: Random) -> Files:
    return {"weights.tar": change_stored(files["weights.tar"], draw)}


def _archive_seeds(folder: Path) -> list[Files]:
    content = b"weights" * 20
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        entry = tarfile.TarInfo(f"pack-1.0/{assets.FACE_GENERATOR.member}")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(assets.FACE_GENERATOR.member, content)
    return [{"a.tar.gz": stream.getvalue()}, {"a.whl": made.getvalue()}]


def _read_archive(folder: Path) -> None:
    assert isinstance(assets.member(next(folder.iterdir()), assets.FACE_GENERATOR), bytes)


def _cache_seeds(folder: Path) -> list[Files]:
    write_cached(folder / "rows.npz", rows=torch.ones(4, 8).numpy())
    return [{"rows.npz": (folder / "rows.npz").read_bytes()}]


def _read_cache(folder: Path) -> None:
    found = read_cached(folder / "rows.npz", ("rows",), 4)
    assert found is None or len(found[0]) == 4


TARGETS = (
    Target("student", _student_seeds, _read_student, _change_student, short=500, seconds=10),
    Target("weights", _weight_seeds, _read_weights, _change_weights, short=1500),
    Target("state", _state_seeds, _read_state, _change_state, short=1000),
    Target("generator", _generator_seeds, _read_generator, _change_generator, short=25, seconds=10),
    Target("archive", _archive_seeds, _read_archive, short=1500, typed=(AssetError,)),
    Target("cache", _cache_seeds, _read_cache, short=1500),
)
