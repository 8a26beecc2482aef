"""Changes of pickles: opcodes moved or repeated, arguments replaced."""

from __future__ import annotations

import pickletools
from random import Random

from fuzz.mutate import edge, mutate_bytes

_MORE = (
    *(
        b"(",
        b")",
        b"]",
        b"}",
        b"0",
        b"2",
        b"t",
        b"a",
        b"e",
        b"s",
        b"u",
        b"R",
        b"b",
        b"\x81",
        b"\x85",
    ),
    *(
        b"\x86",
        b"\x87",
        b"\x88",
        b"N",
        b"h\x00",
        b"h\x01",
        b"q\x00",
        b"Q",
        b".",
        b"\x94",
        b"l",
        b"d",
    ),
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"cbuiltins\nbytearray\n",
    b"\x8a\x06\x00\x00\x00\x00\x00\x01",  # 2**40
    b"K\xff\x85R",
    b"X\x03\x00\x00\x00abc",
    b"B\xff\xff\xff\xff",
)


def mutate_pickle(data: bytes, draw: Random) -> bytes:
    """A pickle with one to five opcodes changed."""
    found = _opcodes(data)
    if len(found) < 3:
        return mutate_bytes(data, draw)
    for _ in range(draw.choice((1, 1, 2, 3, 5))):
        at, other, kind = draw.randrange(len(found)), draw.randrange(len(found)), draw.randrange(7)
        if kind == 0:
            found.insert(at, found[other])
        elif kind == 1 and len(found) > 3:
            del found[at]
        elif kind == 2:
            found[at], found[other] = found[other], found[at]
        elif kind == 3:
            found.insert(at, draw.choice(_MORE))
        elif kind == 4:
            found[at] = found[at][:1] + mutate_bytes(found[at][1:], draw)
        elif kind == 5 and len(found[at]) in (2, 3, 5, 9):
            found[at] = found[at][:1] + edge(draw, len(found[at]) - 1)
        else:
            some = found[other : other + draw.randrange(1, 8)]
            found[at:at] = some * draw.choice((1, 1, 2, 50))
    return b"".join(found)


def _opcodes(data: bytes) -> list[bytes]:
    """The bytes of each opcode, with its argument."""
    try:
        places = [position or 0 for _, _, position in pickletools.genops(data)]
    except ValueError:
        return []
    return [data[a:b] for a, b in zip(places, [*places[1:], places[-1] + 1], strict=True)]
