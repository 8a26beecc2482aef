"""The tables that people choose by, made from the rows: a verdict, the table, its conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from efquantface.runtime.processor import WITH_VNNI, WITHOUT_VNNI

from .groups import FLOAT, MARK, NOT_RECORDED, Group, conditions, grouped, number
from .suites import BITS, NETWORKS, NNCF, QUANTFACE

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_FULL = " full range"
Cell = Callable[[Group], str]


def block(verdict: str, head: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    """A table between its verdict and its conditions, in Markdown."""
    lines = [f"**{verdict}**", "", row(head), row(["---"] * len(head))]
    return "\n".join([*lines, *(row(cells) for cells in body), "", caption])


def row(found: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(found)} |"


def worst(groups: Sequence[Group], names: Sequence[str], metric: str = "1e-4") -> float:
    """The largest mean loss of groups with one of these names, in points.

    Raises:
        LookupError: there is none; a verdict would say nothing.
    """
    losses = [g.mean_loss(metric) for g in groups if g.name in names]
    found = [loss for loss in losses if loss is not None]
    if not found:
        raise LookupError(f"no row of {', '.join(names)} has a loss at {metric}")
    return max(found)


def speed_of(
    group: Group, pool: Sequence[Group], runtime: str, batch: int = 1, against: str = FLOAT
) -> float | None:
    """A group's speed; a student's that is not measured itself is that of the same bits."""
    for name in (group.name, f"{group.name} untrained", f"{group.name}{_FULL}"):
        for other in pool:
            if (other.network, other.name) == (group.network, name):
                found = other.times(runtime, batch, against)
                if found is not None:
                    return found
    return None


def table(verdict: str, shown: Sequence[Group], columns: Mapping[str, Cell], note: str) -> str:
    """A table with a line a group, in Markdown."""
    body = [[cell(group) for cell in columns.values()] for group in shown]
    return block(verdict, list(columns), body, conditions(shown, note))


def _loss(metric: str, of: str = "lfw") -> Cell:
    return lambda g: g.loss(metric, of)


def _value(form: str, *path: str | int) -> Cell:
    return lambda g: number(g.value(*path), form)


LABEL: dict[str, Cell] = {"": lambda g: g.label}
SEEDS: dict[str, Cell] = {"seeds": lambda g: str(len(g.rows))}
EPOCHS = {"epochs": _value(".0f", "epochs")}
MB = {"MB": _value(".2f", "mb")}
PAIRS = {"TAR@1e-3, pairs": _loss("1e-3 pairs"), "1e-4": _loss("1e-4"), "1e-5": _loss("1e-5")}
MINUTES = {"minutes": _value(".0f", "minutes")}


def second_set(shown: Sequence[Group]) -> dict[str, Cell]:
    """The loss on the judging set, where a row was judged."""
    judged = any(g.losses("1e-4", "judge") for g in shown)
    return {"second set, 1e-4": _loss("1e-4", "judge")} if judged else {}


def _speeds(pool: Sequence[Group], batches: Sequence[int], head: str) -> dict[str, Cell]:
    """Times as fast as the best float form, a column a runtime."""

    def of(runtime: str) -> Cell:
        return lambda g: ", ".join(
            number(speed_of(g, pool, runtime, batch), ".2f", "x") for batch in batches
        )

    return {f"{name}, {head}": of(runtime) for runtime, name in RUNTIMES.items()}


def by_bits() -> str:
    """Loss and speed by bits."""
    pool = grouped("bits")
    shown = [g for g in pool if g.name in BITS]
    columns = {
        **LABEL,
        **SEEDS,
        **EPOCHS,
        "cosine": _value(".4f", "lfw", "cosine"),
        **PAIRS,
        **second_set(shown),
        **MB,
        **_speeds(pool, (1,), "times"),
    }
    verdict = (
        f"Take W8A8 or W6A8: at FAR 1e-4 they lose at most {worst(shown, ('w8a8', 'w6a8')):.2f} points; "
        f"W4A8 loses up to {worst(shown, ('w4a8',)):.2f}, W6A6 up to {worst(shown, ('w6a6',)):.2f} and "
        f"W4A4 up to {worst(shown, ('w4a4',)):.2f}, and fewer activation bits make nothing faster."
    )
    note = (
        "Losses of TAR in points on LFW (1e-3 of its 6,000 pairs, the others of all pairs): mean over "
        "seeds and [least, largest], of one seed its 95 % interval. Times as fast as the best float "
        "form in the same runtime, one crop, one thread; of the same bits untrained or in full range "
        "where the row has none. `python -m benchmarks run bits`"
    )
    return table(verdict, shown, columns, note)


def pruning() -> str:
    """Pruned networks beside unpruned ones."""
    base = grouped("bits") + grouped("networks")
    pool = grouped("pruning")
    shown: list[Group] = []
    for network in ("y1", "mobileface2", "dlib"):
        shown += _named(base, network, "w8a8")
        for pruned in ("25%", "50%", "70%"):
            shown += pruned_groups(pool, network, pruned)
    columns = {
        **LABEL,
        **SEEDS,
        **EPOCHS,
        "accuracy": _loss("accuracy"),
        "TAR@1e-4": _loss("1e-4"),
        **second_set(shown),
        "MACs": _macs,
        **MB,
        **_speeds(base + pool, (1, 16), "batch 1, 16"),
    }
    losses = {
        share: [loss for g in shown if g.name.startswith(share) and (loss := g.mean_loss("1e-4"))]
        for share in ("25%", "50%")
    }
    verdict = (
        "Bits first: a quarter of the multiply-accumulates costs another "
        f"{min(losses['25%']):.1f} to {max(losses['25%']):.1f} points of TAR at FAR 1e-4, half of them "
        f"{min(losses['50%']):.1f} to {max(losses['50%']):.1f}, too much for most uses."
    )
    note = (
        "Losses in points on LFW, TAR of all pairs. Channels by Taylor's importance in eight rounds. "
        "Times as fast as the best float form, one thread. `python -m benchmarks run pruning`"
    )
    return table(verdict, shown, columns, note)


def _macs(g: Group) -> str:
    """Multiply-accumulates that are left."""
    teacher, student = g.value("macs", 0), g.value("macs", 1)
    return f"{1.0 if teacher is None or student is None else student / teacher:.0%}"


def pruned_groups(groups: Sequence[Group], network: str, share: str) -> list[Group]:
    """The default recipe's groups, or of other recipes those nearest to it."""
    names = [f"{share} w8a8{form}" for form in ("", f"{_FULL} 12 epochs", _FULL)]
    return next(filter(None, (_named(groups, network, name) for name in names)), [])


def processors() -> str:
    """Right sums and speed by the kind of processor."""
    kinds = {WITH_VNNI: "with VNNI", WITHOUT_VNNI: "without VNNI"}
    shown = [g for g in grouped("processors") if g.kind in kinds]
    by_kind = {(g.network, g.name, g.kind): g for g in shown}
    body = []
    for network, name in dict.fromkeys((g.network, g.name) for g in shown):
        there = [by_kind.get((network, name, kind)) for kind in kinds]
        exact = number(there[1].value("to_integers") if there[1] else None, ".4f")
        speeds = [_on(g, runtime) for g in there for runtime in RUNTIMES]
        body.append([f"{network}, {name}", exact, *speeds])
    head = ["", "cosine to the integers without VNNI"]
    head += [f"{runtime} {words}" for words in kinds.values() for runtime in RUNTIMES.values()]
    fast, slow = (
        [
            t
            for g in shown
            if (g.name, g.kind) == ("w8a8", kind) and (t := g.times("onnxruntime", 1))
        ]
        for kind in kinds
    )
    sums = [(_FULL in g.name, c) for g in shown if (c := g.value("to_integers")) is not None]
    wrong, right = (min(c for full, c in sums if full is kind) for kind in (True, False))
    verdict = (
        f"W8A8 is up to {max(fast):.1f} times as fast as the best float form with VNNI, and up to "
        f"{max(slow):.1f} times without. There the portable form (the default) gives the same integers "
        f"at all bits (cosine {right:.4f}); a file of full range does not ({wrong:.4f})."
    )
    note = (
        "Speed does not depend on training. Times as fast as the best float form in the same runtime, "
        "batch 1 and 16, one thread. A plain session's cosine to the integers is 1 with VNNI. "
        "`python -m benchmarks run processors`, once on each kind of processor; one that is masked is "
        "`benchmarks/without_vnni.py`'s: kernels as without VNNI, clock and caches of one with it"
    )
    return block(verdict, head, body, conditions(shown, note))


def _on(g: Group | None, runtime: str) -> str:
    """Times as fast at batch 1 and 16."""
    if g is None or g.times(runtime, 1) is None:
        return NOT_RECORDED
    both = ", ".join(number(g.times(runtime, batch), ".2f", "x") for batch in (1, 16))
    return f"{both} {MARK}" if g.marked else both


def peers() -> str:
    """Other tools on the same images."""
    ours = grouped("bits")
    others = grouped("peers")
    shown: list[Group] = []
    for network in ("y1", "foamliu_mobilefacenet", "mobileface2"):
        shown += [g for g in others if g.network == network and not g.name.startswith(QUANTFACE)]
        shown += _named(ours, network, "w8a8")
        for bits in ("w6a6", "w4a4"):
            rule = _named(others, network, f"{QUANTFACE}, {bits}")
            shown += [*rule, *(_named(ours, network, bits) if rule else [])]
    own = {id(g) for g in ours}

    def label(g: Group) -> str:
        return g.label.replace(", ", ", ours, ", 1) if id(g) in own else g.label

    def times(g: Group) -> str:
        runtime = "openvino" if g.name == NNCF else "onnxruntime"
        found = speed_of(g, ours, runtime) if id(g) in own else g.times(runtime, 1)
        return number(found, ".2f", "x")

    columns = {"": label, **PAIRS, **MB, "times as fast, batch 1": times}
    static = worst([g for g in shown if g.network == "y1"], ("quantize_static Percentile",))
    mine = worst([g for g in shown if g.network == "y1"], ("w8a8",))
    by_rule = worst(shown, (f"{QUANTFACE}, w6a6",))
    verdict = (
        f"Where activations are PReLU (y1), quantize_static loses {static:.1f} points or more at FAR "
        f"1e-4 and ours {mine:.2f}; NNCF is as near; QuantFace's rule loses up to {by_rule:.0f} in "
        "W6A6."
    )
    note = (
        "W8A8 where no bits are named; the same calibration crops and, for QuantFace's rule (its "
        "networks are float inside), the same images and steps. NNCF's file runs in OpenVINO. "
        "`python -m benchmarks run peers`"
    )
    return table(verdict, shown, columns, note)


def _named(groups: Sequence[Group], network: str, *names: str) -> list[Group]:
    return [g for name in names for g in groups if (g.network, g.name) == (network, name)]


def networks() -> str:
    """Every other network."""
    shown = [
        g
        for g in grouped("networks")
        if g.losses("1e-4") and (not g.name.endswith(_FULL) or g.network not in NETWORKS)
    ]
    columns = {
        **LABEL,
        **SEEDS,
        "held-out loss": _value(".4f", "held_out", 1),
        "accuracy": _loss("accuracy"),
        "TAR@1e-4": _loss("1e-4"),
        "1e-5": _loss("1e-5"),
        **MB,
        "int8": lambda g: "{} of {}".format(*g.rows[0]["int8"]),
        **MINUTES,
    }
    verdict = (
        "No other network at hand loses more than "
        f"{worst(shown, ('w8a8', f'w8a8{_FULL}')):.2f} points of TAR at FAR 1e-4 in W8A8."
    )
    note = (
        "Held-out loss is 1 - cosine to the teacher after training. The IResNet-18 was made for want of "
        "a trained one and is not representative. `python -m benchmarks run networks`"
    )
    return table(verdict, shown, columns, note)


def synthetic() -> str:
    """Students that saw no photograph."""
    shown, real = grouped("synthetic"), {(g.network, g.name): g for g in grouped("bits")}

    def beside(g: Group) -> str:
        return real[g.network, g.name].loss("1e-4")

    more = [
        loss - other
        for g in shown
        if (loss := g.mean_loss("1e-4")) is not None
        and (other := real[g.network, g.name].mean_loss("1e-4")) is not None
    ]
    verdict = (
        f"Students of synthetic faces alone lose {min(more):.2f} to {max(more):.2f} points more at FAR "
        "1e-4 than those of real ones."
    )
    columns = {**LABEL, **SEEDS, **EPOCHS, **PAIRS, "1e-4, of real faces": beside}
    columns |= {**second_set(shown), **MINUTES}
    note = "6,000 images of the default generator. `python -m benchmarks run synthetic`"
    return table(verdict, shown, columns, note)


def all_tables() -> dict[str, Callable[[], str]]:
    from .bounds import bounds

    return {
        "bits": by_bits,
        "pruning": pruning,
        "processors": processors,
        "peers": peers,
        "networks": networks,
        "synthetic": synthetic,
        "bounds": bounds,
    }
