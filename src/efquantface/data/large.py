"""Sets that are larger than memory: all crops are checked once, then read a batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, check_sizes, decoder, look_first, none_is_whole
from efquantface.data.source import FaceSource
from efquantface.data.streaming import Decode, Names, Seen, StreamedCrops, ahead
from efquantface.interfaces import Progress

Once = Callable[[Callable[[], bytes]], bytes]


def alone(make: Callable[[], bytes]) -> bytes:
    """The ``once`` of a single process: calls ``make``."""
    return make()


def bytes_of(images: int, contract: FaceContract) -> int:
    """Bytes that crops take in memory."""
    return images * contract.height * contract.width * 3


def stream(
    source: FaceSource,
    contract: FaceContract,
    index: npt.NDArray[np.int64],
    *,
    resize: bool = False,
    once: Once = alone,
    progress: Progress | None = None,
) -> FaceSet:
    """The set that :func:`~efquantface.data.faces.load` gives, with its crops left in their files.

    Args:
        source, contract, index, resize, progress: as of ``load``.
        once: lets the first of several processes read the files, and hands its result to the others.

    Raises:
        DataError: no item is a whole image.
        CropError: crops of another size, where ``resize`` is not asked for.
    """
    decode = decoder(source, contract, resize)
    own: list[Seen] = []

    def look() -> bytes:
        own.append(_look(source, contract, decode, index, progress))
        return own[0].packed()

    packed = once(look)
    seen = own[0] if own else Seen.unpacked(packed)
    content = seen.content if own else None
    kept = np.asarray(seen.kept, np.int64)
    size = (contract.height, contract.width)
    crops: Any = StreamedCrops(source, decode, kept, size, content)
    return FaceSet(
        cast("npt.NDArray[np.uint8]", crops),  # read alike, row by row
        Names(source, kept),
        source.identities[kept],
        source.identity_names,
        source.where,
        seen.skipped,
    )


def _look(
    source: FaceSource,
    contract: FaceContract,
    decode: Decode,
    index: npt.NDArray[np.int64],
    progress: Progress | None,
) -> Seen:
    """Decode every item once; list those that are not crops, as ``load`` does."""
    look_first(source, contract, decode, index)  # type: ignore[arg-type]
    seen = Seen()
    kept = np.empty(len(index), np.int64)
    count = 0
    wrong: Counter[tuple[int, ...]] = Counter()
    for done, (item, result) in enumerate(zip(index, ahead(decode, index), strict=True)):
        if isinstance(result, np.ndarray):
            kept[count] = item
            count += 1
            seen.content.update(np.ascontiguousarray(result).data)
        elif isinstance(result, tuple):
            wrong[result[:2]] += 1
            seen.skipped.append((source.name(int(item)), f"is {result[1]}x{result[0]}"))
        else:
            seen.skipped.append((source.name(int(item)), result))
        if progress and (done % 64 == 63 or done + 1 == len(index)):
            progress(done + 1, len(index))
    check_sizes(source.where, contract, wrong, len(index))
    if not count:
        raise none_is_whole(source, len(index), seen.skipped)
    seen.kept = kept[:count].copy()
    return seen
