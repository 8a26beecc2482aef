"""Changes of bytes, texts and plain data. All randomness comes from the given ``Random``."""

from __future__ import annotations

import json
from random import Random
from typing import Any

_EDGES = (0, 1, 2, 7, 127, 128, 255, 65535, 2**20, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
_FAR = (2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_WORDS = (
    *(
        "\t",
        " ",
        "\n",
        "\r\n",
        "#",
        "..",
        "/",
        "../../../x",
        "/etc/passwd",
        "0",
        "-1",
        "1",
        "9" * 30,
    ),
    *("\0", "\x85", "1e9", "1e999", "nan", "-inf", "\u0663", "\u00b2", "[/red]", "True", '"', ","),
    *(
        "=",
        "~",
        "\u2028",
        "\U0001f600",
        "\x1b[31m",
        "[" * 2000,
        "9" * 5000,
        "&a",
        "*a",
        "{",
        "}",
        ":",
    ),
)
_VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        0.5,
        1e300,
        -0.0,
        float("nan"),
        float("inf"),
        "",
        "x",
        "class",
    ),
    *(
        [],
        {},
        [0],
        [[]],
        {"a": 1},
        "../x",
        "\ud800",
        2**31,
        2**40,
        2**63,
        -(2**63),
        10**30,
        1_000_000,
    ),
)


def edge(draw: Random, width: int) -> bytes:
    """A number at an edge (of a type or a size), in ``width`` bytes."""
    number = draw.choice((*_EDGES, *_FAR, draw.getrandbits(8 * width))) & ((1 << 8 * width) - 1)
    return number.to_bytes(width, draw.choice(("little", "little", "little", "big")))


def mutate_bytes(data: bytes, draw: Random, focus: int | None = None) -> bytes:
    """Bytes flipped, replaced, cut or repeated; with ``focus`` mostly among the first so many."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5, 8))):
        size = len(found)
        if not size:
            found += draw.randbytes(4)
            continue
        reach = size if focus is None or draw.random() < 0.3 else min(size, focus)
        at, kind = draw.randrange(max(reach, 1)), draw.randrange(9)
        some = draw.randrange(1, min(size, 256) + 1)
        start = draw.randrange(size)
        if kind == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found[at] = draw.randrange(256)
        elif kind == 2:
            del found[at:]
        elif kind == 3:
            del found[at : at + min(some, 64)]
        elif kind == 4:
            found[at:at] = found[start : start + some]
        elif kind == 5:
            found[at : at + some] = data[start : start + some]
        elif kind == 6:
            width = draw.choice((1, 2, 4, 8))
            found[at : at + width] = edge(draw, width)
        elif kind == 7:
            found[at:at] = draw.randbytes(draw.randrange(1, 9))
        else:
            found[at : at + some] = bytes(some)
    return bytes(found)


def mutate_text(data: bytes, draw: Random) -> bytes:
    """Words and lines replaced, repeated, moved or cut."""
    found = data.decode("utf-8", "surrogateescape")
    for _ in range(draw.choice((1, 1, 2, 3, 5))):
        at, kind = draw.randrange(len(found) + 1), draw.randrange(7)
        if kind == 0:
            found = found[:at] + draw.choice(_WORDS) + found[at:]
        elif kind == 1:
            found = found[:at] + draw.choice(_WORDS) + found[at + draw.randrange(1, 6) :]
        elif kind == 2:
            found = found[:at] + found[at + draw.randrange(1, 20) :]
        elif kind == 3:
            found = found[:at] if draw.random() < 0.3 else found
        elif kind == 4:
            lines = found.split("\n")
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
            found = "\n".join(lines)
        elif kind == 5:
            lines = found.split("\n")
            draw.shuffle(lines)
            found = "\n".join(lines)
        else:
            lines = found.split("\n")
            place = draw.randrange(len(lines))
            words = lines[place].split()
            if words:
                words[draw.randrange(len(words))] = draw.choice(_WORDS)
                lines[place] = draw.choice((" ", "\t", ",")).join(words)
                found = "\n".join(lines)
    made = found.encode("utf-8", "surrogateescape" if _plain(found) else "surrogatepass")
    return mutate_bytes(made, draw) if draw.random() < 0.1 else made


def _plain(text: str) -> bool:
    """Whether all surrogates in a text stand for bytes."""
    return not any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in text)


def mutate_plain(value: Any, draw: Random) -> Any:
    """Plain data (as in JSON) with one to four values changed, also inside texts that are JSON."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        value = _changed(value, draw)
    return value


def _changed(value: Any, draw: Random) -> Any:
    inside = _inside(value)
    if inside is not None and draw.random() < 0.97:
        return json.dumps(_changed(inside, draw))
    if isinstance(value, list | dict) and value and draw.random() < 0.95:
        keys = list(range(len(value))) if isinstance(value, list) else list(value)
        key = draw.choice(keys)
        made: Any = value.copy()
        how = draw.random()
        if how < 0.04:
            del made[key]
        elif how < 0.07 and isinstance(made, list):
            made.insert(key, draw.choice(value))
        elif how < 0.07:
            made[draw.choice((*keys, "more"))] = made.pop(key)
        else:
            made[key] = _changed(value[key], draw)
        return made
    if isinstance(value, int | float) and draw.random() < 0.5:
        return draw.choice((value + 1, value - 1, -value, value * 2, *_EDGES, *_FAR))
    if draw.random() < 0.01:
        nested: Any = []
        for _ in range(900):
            nested = [nested]
        return nested
    return draw.choice(_VALUES)


def _inside(value: Any) -> Any:
    """The list or dictionary that a text holds as JSON; None for other values."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return None
    try:
        return json.loads(value)
    except ValueError:
        return None
