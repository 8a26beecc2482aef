"""The README's picture and table, made from the same rows as the results page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mode

from efquantface.runtime.processor import WITH_VNNI, WITHOUT_VNNI

from .groups import FLOAT, MASKED, USER, Group, grouped, kind_of
from .plots import SHOWN
from .tables import row, speed_of

BITS = ("w8a8", "w6a8", "w4a8")
NETWORKS = {
    "y1": "y1, MobileFaceNet of PReLU, 4.00 MB",
    "foamliu_mobilefacenet": "foamliu, MobileFaceNet of ReLU6, 4.00 MB",
    "mobileface2": "mobileface2, small MobileFaceNet, 3.53 MB",
}
_NONE = "–"  # noqa: RUF001


def picture() -> str:
    """The picture, and what it shows in words."""
    group, pool = _first(SHOWN, "w8a8"), grouped("bits")
    times, loss = speed_of(group, pool, "onnxruntime", against=USER), group.mean_loss("1e-4")
    words = (
        f"Loss of TAR against speed on MobileFaceNet {SHOWN}: ours in W8A8 is {times:.1f} times as "
        f"fast as the owner's file and loses {loss:.2f} points"
    )
    return f"![{words}](docs/images/readme.svg)"


def by_bits() -> str:
    """Loss, size and speed of three networks, and which recipe they are of."""
    loss = "loss of TAR, points, at FAR 1e-4"
    lines = [row(["network", "bits", loss, "1e-5", "file, MB", "speed, VNNI", "speed, no VNNI"])]
    lines.append(row(["---"] * 7))
    shown = []
    for network, words in NETWORKS.items():
        for bits in BITS:
            group = _first(network, bits)
            shown.append(group)
            losses = (group.mean_loss(metric) for metric in ("1e-4", "1e-5"))
            speeds = (_speed(group, kind) for kind in (WITH_VNNI, WITHOUT_VNNI))
            cells = [words if bits == BITS[0] else "", bits.upper()]
            cells += [*map(_cell, losses), _cell(group.value("mb"))]
            lines.append(row([*cells, *(_cell(s, ".1f", "x") for s in speeds)]))
    return "\n".join([*lines, "", _note(shown)])


def _note(shown: list[Group]) -> str:
    """What the numbers are, and how many of the rows an earlier recipe made."""
    group = _first(SHOWN, BITS[0])
    pool = grouped("bits")
    best, own = (speed_of(group, pool, "onnxruntime", against=a) for a in (FLOAT, USER))
    slower = (
        f" {SHOWN}'s own file takes {own / best:.1f} times as long as that." if best and own else ""
    )
    old = sum(group.marked for group in shown)
    some = "All" if old == len(shown) else f"{old} of {len(shown)}"
    pairs = (group.value("lfw", "pairs", 1) or 0) / 1e6
    return (
        f"Losses are of all {pairs:.1f} million pairs of LFW, {_seeds(shown)}. Students were "
        f"{_epochs(shown)}. Speed is of one "
        f"face on one thread in ONNX Runtime, against the teacher's *best* float form.{slower}"
        + (
            f" {some} rows are of another recipe than today's default, or of one not recorded."
            if old
            else ""
        )
        + _masked(shown)
        + " Commands, dates and machines: [results](docs/results.md)."
    )


def _seeds(shown: list[Group]) -> str:
    """How many seeds a loss is the mean of."""
    fewest, most = (of(len(g.rows) for g in shown) for of in (min, max))
    if most == 1:
        return "of one seed"
    return f"means of {most} seeds" if fewest == most else f"means of {fewest} to {most} seeds"


def _epochs(shown: list[Group]) -> str:
    """How long students were trained: most of them, then the others."""
    epochs = {group.name.upper(): group.value("epochs") or 0 for group in shown}
    usual = mode(epochs.values())
    others = [f"{name} for {found:.0f}" for name, found in epochs.items() if found != usual]
    return ", ".join([f"trained for {usual:.0f} epochs", *others])


def _masked(shown: list[Group]) -> str:
    """Where the speed without VNNI comes from, if not from such a processor."""
    networks = {group.network for group in shown}
    rows = [r for g in grouped("processors") if g.network in networks for r in g.rows]
    if any(MASKED in str(row.get("speed_on")) for row in rows):
        return " Speed without VNNI is that of its kernels on a processor that has it."
    return ""


def _first(network: str, name: str) -> Group:
    """A cell's group, the newest of several training sets.

    Raises:
        LookupError: nothing was measured.
    """
    for group in grouped("bits"):
        if (group.network, group.name) == (network, name):
            return group
    raise LookupError(f"no row of {network}, {name}")


def _speed(group: Group, kind: str) -> float | None:
    """Times as fast as the best float form on a kind of processor."""
    cell = group.network, group.name, kind
    for other in grouped("processors"):
        times = other.times("onnxruntime", 1)
        if (other.network, other.name, other.kind) == cell and times is not None:
            return times
    timed = [
        replace(other, rows=there)
        for other in grouped("bits")
        if (there := tuple(r for r in other.rows if kind_of(r.get("speed_on")) == kind))
    ]
    return speed_of(group, timed, "onnxruntime")


def _cell(value: float | None, form: str = ".2f", ending: str = "") -> str:
    return _NONE if value is None else f"{value:{form}}{ending}"


def blocks() -> dict[str, Callable[[], str]]:
    """The blocks between the README's markers."""
    return {"picture": picture, "bits": by_bits}
