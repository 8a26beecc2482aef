"""Images that are small files and large pictures, or that other programs would have to open."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from efquantface.data import images
from efquantface.data.images import UnreadableImage, read_image


def png_of(width: int, height: int, colour: int = 0) -> bytes:
    """A PNG that says it has so many pixels, and holds few of them."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def bmp_of(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + head + bytes(900)


def gif_of(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("P", (4, 4)).save(stream, "GIF")
    data = bytearray(stream.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    "size", [(10_001, 10_000), (20_000, 9_650), (2**31 - 1, 1), (2**30, 2**30)]
)
@pytest.mark.parametrize("make", [png_of, bmp_of])
def test_the_limit_holds_before_anything_is_decoded(make, size, tmp_path: Path) -> None:
    data = make(*size)
    path = tmp_path / "large"
    path.write_bytes(data)
    for given in (data, path):
        with pytest.raises(UnreadableImage, match=r"at most 100 million|exceeds limit|\w"):
            read_image(given)


def test_a_canvas_of_a_moving_picture_counts() -> None:
    with pytest.raises(UnreadableImage, match="at most 100 million"):
        read_image(gif_of(60_000, 60_000 // 32))


def test_nothing_is_handed_to_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **options: object) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", run)
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(UnreadableImage, match="not an image"):
        read_image(text)


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads on images above the (lowered) mark: never two in the decoder."""
    monkeypatch.setattr(images, "_LARGE", 100)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(stream, "PNG")
    inside, most = 0, 0
    decode = images._as_rgb

    def counted(image: Image.Image) -> np.ndarray:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return decode(image)
        finally:
            inside -= 1

    monkeypatch.setattr(images, "_as_rgb", counted)
    threads = [
        Thread(target=lambda: [read_image(stream.getvalue()) for _ in range(20)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_sixteen_bits_in_blocks_of_rows(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (700, 5)).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "w.png")
    np.testing.assert_array_equal(read_image(tmp_path / "w.png")[..., 0], np.rint(wide / 257))
