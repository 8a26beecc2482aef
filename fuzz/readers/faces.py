"""Readers of faces: images, records, verification files, parquet, tars, embeddings, lists."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
from PIL import Image, features

from conftest import make_faces
from efquantface.codes import encode
from efquantface.data.faces import open_source
from efquantface.data.images import UnreadableImage, read_image, write_image
from efquantface.data.listing import write_list
from efquantface.data.source import FaceSource
from efquantface.embedding.stored import FORMATS, read, write
from efquantface.errors import DataError
from formats import png, write_rec, write_tar
from fuzz.mutate import edge, mutate_bytes
from fuzz.pickled import mutate_pickle
from fuzz.target import Files, Target, any_file, files_of

_SMALL = 8


def _images() -> list[np.ndarray]:
    return list(make_faces(3, 2, size=_SMALL).images)


def _read(folder: Path) -> None:
    """Open the source called ``faces`` and read its items."""
    _check(open_source(next(p for p in folder.glob("faces.*") if p.suffix != ".idx")))


def _check(source: FaceSource) -> None:
    count = len(source)
    assert count > 0
    assert source.identities.shape == (count,)
    assert int(source.identities.max()) < max(len(source.identity_names), 1)
    for item in range(min(count, 20)):
        assert isinstance(source.name(item), str)
        with contextlib.suppress(UnreadableImage, DataError):
            image = source.read(item)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3


# --- images

_FORMS: dict[str, dict[str, object]] = {
    "PNG": {},
    "JPEG": {"quality": 90},
    "BMP": {},
    "GIF": {},
    "PPM": {},
    "TIFF": {},
    "WEBP": {},
    "JPEG2000": {},
    "AVIF": {},
}


def _image_seeds(folder: Path) -> list[Files]:
    rgb = Image.fromarray(_images()[0])
    made = []
    for form, options in _FORMS.items():
        if form == "AVIF" and not features.check("avif"):
            continue
        modes = ("RGB", "L", "P", "RGBA") if form in ("PNG", "TIFF") else ("RGB",)
        made += [_encoded(rgb.convert(mode), form, **options) for mode in modes]
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made.append(_encoded(rgb, "TIFF", compression=compression))
    wide = Image.fromarray(_images()[0][..., 0].astype(np.uint16) * 257)
    made += [_encoded(wide, form) for form in ("PNG", "TIFF")]
    exif = Image.Exif()
    exif[0x0112] = 6
    made.append(_encoded(rgb, "JPEG", exif=exif))
    several = [Image.fromarray(image) for image in _images()[:2]]
    made.append(_encoded(several[0], "GIF", save_all=True, append_images=several[1:]))
    return [{"image": data} for data in made]


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _read_image(folder: Path) -> None:
    for given in (folder / "image", (folder / "image").read_bytes()):
        image = read_image(given)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3


def _change_image(files: Files, draw: Random) -> Files:
    """An image with bytes changed; of a PNG also chunks, with right checksums."""
    data = files["image"]
    if data.startswith(b"\x89PNG") and draw.random() < 0.6:
        return {"image": _change_png(data, draw)}
    return {"image": mutate_bytes(data, draw, focus=64)}


def _change_png(data: bytes, draw: Random) -> bytes:
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    chunk = draw.choice(chunks)
    if chunk[0] == b"IHDR" and draw.random() < 0.5:
        place = draw.choice((0, 4))
        chunk[1] = chunk[1][:place] + edge(draw, 4) + chunk[1][place + 4 :]
    elif chunk[0] == b"IDAT" and draw.random() < 0.5:
        chunk[1] = zlib.compress(mutate_bytes(zlib.decompress(chunk[1]), draw))
    elif draw.random() < 0.2:
        chunks.insert(draw.randrange(len(chunks)), draw.choice(chunks))
    else:
        chunk[1] = mutate_bytes(chunk[1], draw)
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


# --- records, verification files, parquet


def _rec_seeds(folder: Path) -> list[Files]:
    images = [png(image) for image in _images()]
    made = []
    for name, index in (("a", True), ("b", False)):
        (folder / name).mkdir()
        write_rec(folder / name / "faces.rec", images, [0, 0, 1, 1, 2, 2], header=index)
        files = files_of(folder / name)
        made.append(files if index else {"faces.rec": files["faces.rec"]})
    return made


def _bin_seeds(folder: Path) -> list[Files]:
    images = [png(image) for image in _images()]
    arrays = [np.frombuffer(image, np.uint8) for image in images]
    same = [True, False, True]
    made = []
    for protocol in range(6):
        for content in ((images, same), (arrays, same), (images, np.asarray(same))):
            made.append({"faces.bin": pickle.dumps(content, protocol=protocol)})
    return [m for m in made if _is_read(folder, m)]


def _is_read(folder: Path, files: Files) -> bool:
    """Whether a seed is read. Pickles of arrays in protocol 5 are not."""
    path = folder / "faces.bin"
    path.write_bytes(files["faces.bin"])
    try:
        open_source(path)
    except DataError:
        return False
    return True


def _change_bin(files: Files, draw: Random) -> Files:
    how = mutate_pickle if draw.random() < 0.7 else mutate_bytes
    return {"faces.bin": how(files["faces.bin"], draw)}


def _parquet_seeds(folder: Path) -> list[Files]:
    images = [png(image) for image in _images()]
    made = []
    for number, (column, options) in enumerate(
        (
            (images, {}),
            ([{"bytes": i, "path": None} for i in images], {"compression": "zstd"}),
            (images, {"compression": "none", "use_dictionary": False}),
        )
    ):
        path = folder / f"{number}.parquet"
        table = arrow.table({"image": column, "label": ["a", "a", "b", "b", "c", "c"]})
        parquet.write_table(table, path, row_group_size=2, **options)
        made.append({"faces.parquet": path.read_bytes()})
    return made


def _tar_seeds(folder: Path) -> list[Files]:
    images = [png(image) for image in _images()]
    labelled = [(f"{i}.png", image) for i, image in enumerate(images)]
    labelled += [(f"{i}.json", b'{"label": %d}' % (i // 2)) for i in range(len(images))]
    long = [(f"{'person' * 40}/{i}.a.png", image) for i, image in enumerate(images)]
    made = []
    for number, members in enumerate((labelled, long)):
        made.append({"faces.tar": write_tar(folder / f"{number}.tar", members).read_bytes()})
    return made


# --- files of embeddings

_ROWS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def _stored_seeds(folder: Path) -> list[Files]:
    names = {"names": np.array(list("abcde")), "identities": np.array([""] * 5)}
    codes, scales = encode(_ROWS)
    made = []
    for kind in FORMATS:
        for arrays in ({"embeddings": _ROWS}, {"embeddings": codes, "scales": scales}):
            stream = io.BytesIO()
            write(kind, stream, [{**arrays, **names}], 5, {"source": "a", "embeddings": 5})
            made.append({f"rows{kind}": stream.getvalue()})
    return made


def _read_stored(folder: Path) -> None:
    found = read(next(folder.glob("rows.*")))
    assert found.rows.dtype == np.float32
    assert found.rows.ndim == 2
    assert len(found.names) == len(found.identities) == len(found)
    assert len(found.digest()) == 64


# --- lists


def _list_seeds(folder: Path) -> list[Files]:
    people = folder / "people"
    for number, image in enumerate(_images()):
        (people / str(number // 2)).mkdir(parents=True, exist_ok=True)
        write_image(people / str(number // 2) / f"{number}.png", image)
    write_list(folder / "faces.txt", open_source(people), range(6), "all of them")
    files = files_of(folder)
    records = _rec_seeds(folder / "records") if (folder / "records").mkdir() is None else []
    rec = {name.replace("faces.", "train."): data for name, data in records[0].items()}
    return [files, {**rec, "faces.txt": b"# some\ntrain.rec#1\ntrain.rec#4\n"}]


def _change_list(files: Files, draw: Random) -> Files:
    name = "faces.txt" if draw.random() < 0.9 else draw.choice(sorted(files))
    return {**files, **any_file({name: files[name]}, draw)}


TARGETS = (
    Target("image", _image_seeds, _read_image, _change_image, 2500, typed=(UnreadableImage,)),
    Target("rec", _rec_seeds, _read, short=1500),
    Target("bin", _bin_seeds, _read, _change_bin, short=4000),
    Target("parquet", _parquet_seeds, _read, short=1200),
    Target("tar", _tar_seeds, _read, short=1200),
    Target("embeddings", _stored_seeds, _read_stored, short=1200),
    Target("list", _list_seeds, _read, _change_list, short=1500),
)
