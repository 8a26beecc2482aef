"""Every bit width on two networks, row by row: the exported files in their runtimes, and peers.

    python benchmarks/low_bits.py --shared ../shared --out runs/low_bits            # all rows
    python benchmarks/low_bits.py --shared ../shared --out runs/low_bits --only y1/w4a4
    python benchmarks/low_bits.py --shared ../shared --out runs/low_bits --measure  # latencies

A row is a run of `compress` (a folder of OUT) on faces6k, evaluated on LFW once, and a file of
benchmarks/results/low_bits. A row that has its file is left alone: a break loses one row at most, and
several sittings (or processes) continue the same table. Trained rows hold the fake-quantized student's
numbers, too. Choices were made on identities held out of faces6k. benchmarks/results/low_bits.md is
written after every row.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from efquantface import Embedder, compress
from efquantface.assets import file_sha256
from efquantface.data.faces import load_faces, split
from efquantface.embedding.cache import EmbeddingCache
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.run import evaluate_set
from efquantface.export.operators import executed
from efquantface.importers.load import load_model
from efquantface.pipeline.start import calibration_index
from efquantface.recipe import Recipe
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory
from main_job import WANTED, only_value, static
from run_speed import USERS, measured
from speed import nncf_file

TEACHERS = {"y1": None, "foamliu_mobilefacenet": "imagenet"}
BITS = ("w8a8", "w6a8", "w4a8", "w6a6", "w4a4")
UNTRAINED = {"epochs": 0}
# 2 where not named; foamliu is of ReLU6, and its held-out loss falls for longer
EPOCHS = {"y1/w4a4": 3, "foamliu_mobilefacenet/w6a6": 3, "foamliu_mobilefacenet/w4a4": 12}
SHORTER = {"foamliu_mobilefacenet/w4a4": 6}  # more rows of ours: the steps that the peers have
ROWS = Path(__file__).parent / "results" / "low_bits"


def epochs(teacher: str, bits: str) -> int:
    """Epochs of every way of training a network at some bits."""
    return EPOCHS.get(f"{teacher}/{bits}", 2)


def rows(teacher: str, seeds: int) -> list[tuple[str, dict]]:
    """(name, fields of the recipe): trained and untrained rows of each bit width, then options."""
    found: list[tuple[str, dict]] = []
    for bits in BITS:
        found.append((f"{bits} untrained", {"bits": bits, **UNTRAINED}))
    for seed in range(seeds):
        found += [
            (f"{bits} seed {seed}", {"bits": bits, "seed": seed, "epochs": epochs(teacher, bits)})
            for bits in BITS
        ]
        found += [
            (f"{bits} {passes} epochs seed {seed}", {"bits": bits, "seed": seed, "epochs": passes})
            for bits in BITS
            if (passes := SHORTER.get(f"{teacher}/{bits}"))
        ]
        found.append((f"w8a8 full range seed {seed}", {"full_range": True, "seed": seed}))
    found += [
        ("w8a8 full range untrained", {"full_range": True, **UNTRAINED}),
        ("w8a8 symmetric untrained", {"activations": "symmetric", **UNTRAINED}),
        ("w7a8 untrained", {"bits": "w7a8", **UNTRAINED}),
        ("budget 65% untrained", {"budget": "65%", **UNTRAINED}),
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--measure", action="store_true", help="only latencies, of the rows whose runs are there"
    )
    args = begin(parser)
    if args.measure:
        measure(args)
        return
    lfw, faces = args.shared / "data" / "lfw112", args.shared / "data" / "faces6k"
    for teacher, preprocess in TEACHERS.items():
        for name, options in rows(teacher, args.seeds):
            make_row(ROWS, args, teacher, name, options, fake=options.get("epochs") != 0)
        if is_wanted(f"{teacher}/peers", args):
            path = args.shared / "weights" / f"{teacher}.onnx"
            peers(args.out, teacher, path, preprocess, faces, lfw)
    ROWS.with_suffix(".md").write_text(table(read_rows(ROWS)))
    print(table(read_rows(ROWS)))


def measure(args: argparse.Namespace) -> None:
    """Latency of each row's file beside the user's file and the teacher's best float form."""
    for row in read_rows(ROWS):
        run = args.out / row_file(ROWS, row["name"]).stem
        if is_wanted(row["name"], args) and (run / "student.onnx").is_file():
            name = row["name"].partition("/")[0]
            path = args.shared / "weights" / f"{name}.onnx"
            keep(ROWS, {**row, **measured(load_model(path, preprocess=TEACHERS[name]), run, path)})
            print(row["name"], flush=True)


def arguments(description: str | None) -> argparse.Namespace:
    """The flags of scripts whose rows are runs of `compress`."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    return begin(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the data is, where runs go, and which rows are wanted."""
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", help="TEACHER/ROW, by its beginning")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu", help="cpu or cuda: what trains")


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, and make ready for runs."""
    args = parser.parse_args()
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def is_wanted(name: str, args: argparse.Namespace) -> bool:
    """Whether --only names the row (or nothing)."""
    return not args.only or any(name.startswith(only) for only in args.only)


def make_row(
    rows: Path,
    args: argparse.Namespace,
    teacher: str,
    name: str,
    options: dict,
    fake: bool = True,
) -> None:
    """Run `compress` and keep its row, unless the row is there or not wanted now."""
    full = f"{teacher}/{name}"
    if not is_wanted(full, args) or row_file(rows, full).is_file():
        return
    lfw = args.shared / "data" / "lfw112"
    fields = {
        "teacher": str(args.shared / "weights" / f"{teacher}.onnx"),
        "faces": str(args.shared / "data" / "faces6k"),
        "preprocess": TEACHERS.get(teacher),
        "eval": (f"lfw={lfw}",),
        "benchmark": False,
        "threads": args.threads,
        "device": args.device,
        **options,
    }
    run = args.out / row_file(rows, full).stem
    if not (run / "metrics.json").is_file():
        print(f"== {full}", flush=True)
        recipe = Recipe.create(fields)
        compress(fields["teacher"], fields["faces"], run, recipe=recipe, resume=True)
    write_row(rows, full, run, fields, lfw if fake else None)


def write_row(rows: Path, name: str, run: Path, fields: dict, lfw: Path | None) -> None:
    """Keep what the table needs of a run; with ``lfw`` also the fake-quantized student's numbers."""
    teacher, threads = Path(fields["teacher"]), fields["threads"]
    metrics = json.loads((run / "metrics.json").read_text())
    history = metrics["history"]
    held_out = dict(history["held_out"])  # by step
    found = executed(run / "student.onnx")
    row = {
        "name": name,
        "protocols": metrics["protocols"],
        "bytes": (run / "student.onnx").stat().st_size,
        "convolutions": [found.integer_convolutions, found.convolutions],
        "float": found.in_float,
        "held_out": [held_out[0], held_out[history["best_step"]]] if held_out else None,
        "images": metrics["images_used"],
        "batch": Recipe.create(fields).training.batch_size,
        "epochs": Recipe.create(fields).training.epochs,
        "minutes": history["seconds"] / 60,
        "trained_on": history["device"],
        "threads": threads,
        "packages": environment()["packages"],
        "made": made(),
        "peak_memory_mb": history["peak_memory_mb"],
        "parity": metrics["parity"]["cosine"],
        "lengths": metrics["embedding_lengths"],
    }
    if lfw is not None:
        contract = load_model(teacher, preprocess=fields["preprocess"]).contract
        (people,) = load_eval(f"lfw={lfw}", contract)
        own, student = (
            Embedder.open(m, contract=contract, threads=threads)
            for m in (teacher, run / "student.safetensors")
        )
        images = people.faces.images
        pair = [EmbeddingCache(own, file_sha256(teacher)).embed(images), student.embed(images)]
        row["fake"] = [p.as_dict() for p in evaluate_set(people, *pair)]
    keep(rows, row)


def peers(
    out: Path, teacher: str, path: Path, preprocess: str | None, faces: Path, lfw: Path
) -> None:
    """quantize_static and NNCF (in OpenVINO) on the images that our ranges are searched on."""
    model = load_model(path, preprocess=preprocess)
    contract = model.contract
    known = {row["name"] for row in read_rows(ROWS)}
    missing = [
        m for m in ("static MinMax", "static Percentile", "NNCF") if f"{teacher}/{m}" not in known
    ]
    if not missing:
        return
    loaded = load_faces(faces, contract)
    train, _ = split(loaded, 0.1, 0)
    index = calibration_index(train)
    inputs = contract.normalize(loaded.images[index])
    (people,) = load_eval(f"lfw={lfw}", contract)
    reference = Embedder.open(path, contract=contract).embed(people.faces.images)
    for method in missing:
        row = {"held_out": None, "minutes": 0.0, "peak_memory_mb": 0.0, "parity": None}
        row["made"] = made()
        if method == "NNCF":
            file = nncf_file(path, contract, inputs, out, f"{teacher}_nncf")
            size = sum(file.with_suffix(s).stat().st_size for s in (".xml", ".bin"))
            row |= {"bytes": size, "convolutions": None, "float": {}}
        else:
            file = static(path, out, method.split()[1], inputs, contract.input_name)
            found = executed(file)
            row |= {
                "bytes": file.stat().st_size,
                "convolutions": [found.integer_convolutions, found.convolutions],
                "float": found.in_float,
            }
        student = Embedder.open(file, contract=contract).embed(people.faces.images)
        protocols = [p.as_dict() for p in evaluate_set(people, reference, student)]
        keep(ROWS, {**row, "name": f"{teacher}/{method}", "protocols": protocols})


def row_file(rows: Path, name: str) -> Path:
    return rows / f"{name.replace('/', '_').replace(' ', '_').replace('%', '')}.json"


def keep(rows: Path, row: dict) -> None:
    """Write a row's file, and the table of all rows."""
    rows.mkdir(parents=True, exist_ok=True)
    path = row_file(rows, row["name"])
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(row, indent=1))
    temporary.replace(path)
    rows.with_suffix(".md").write_text(table(read_rows(rows)))


def made() -> str:
    """Date and machine, as a row keeps them."""
    env = environment()
    packages = ", ".join(f"{p} {env['packages'][p]}" for p in ("onnxruntime", "torch"))
    processor = f"{env['processor']} ({', '.join(env['instruction_sets'])})"
    return f"{time.strftime('%Y-%m-%d')}, {processor}, {packages}"


def read_rows(rows: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(rows.glob("*.json"))]


def table(found: list[dict]) -> str:
    """The table of docs/results.md."""
    where = sorted({row["made"] for row in found if "made" in row})
    lines = [
        *(f"- {place}: {sum(row.get('made') == place for row in found)} rows" for place in where),
        f"- before rows said where they were made: {sum('made' not in row for row in found)}",
        "",
        "| | held-out loss before, after | cosine | LFW accuracy | TAR@1e-3 (pairs) "
        "| TAR@1e-4 (all pairs) | 1e-5 | fake-quantized: accuracy, TAR@1e-3 | MB | int8 conv "
        "| images a step | minutes | ONNX Runtime, ms | OpenVINO, ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(found, key=lambda r: r["name"]):
        pairs, every = row["protocols"][:2]
        cells = []
        if row["held_out"]:
            cells.append(", ".join(f"{v:.4f}" for v in row["held_out"]))
        else:
            cells.append("")
        named = {m["name"]: m for m in pairs["metrics"]}
        cells.append(f"{only_value(named['cosine to teacher']):.4f}")
        cells += [loss_cell(named[m]) for m in WANTED[:2]]
        named = {m["name"]: m for m in every["metrics"]}
        cells += [loss_cell(named[m]) for m in WANTED[2:4]]
        cells.append(fake_cell(row))
        integer = "{} of {}".format(*row["convolutions"]) if row["convolutions"] else ""
        cells += [f"{row['bytes'] / 1e6:.3f}", integer]
        cells += [f"{row.get('batch', 64)}", minutes_cell(row)]
        cells += [latency_cell(row, ""), latency_cell(row, ", OpenVINO")]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def latency_cell(row: dict, runtime: str) -> str:
    """One crop's time on one thread, and how many times faster than the best float form."""
    ms = {t["name"]: t["median_ms"] for t in row.get("speed", []) if t["batch"] == 1}
    if not ms:
        return ""
    own, teacher = ms[f"student{runtime}"], ms[f"teacher{runtime}"]
    users = f", {ms[USERS] / own:.2f}x the user's file" if USERS in ms and not runtime else ""
    return f"{own:.2f} ({teacher / own:.2f}x{users})"


def fake_cell(row: dict) -> str:
    """Accuracy and TAR of the student in PyTorch, beside those of its file."""
    if "fake" not in row:
        return ""
    named = {m["name"]: m for m in row["fake"][0]["metrics"]}
    return ", ".join(f"{100 * named[m]['student']:.2f}" for m in WANTED[:2])


def minutes_cell(row: dict) -> str:
    """Minutes of training, with what trained where that was no processor."""
    where = row.get("trained_on", "cpu")
    return f"{row['minutes']:.1f}" + ("" if where == "cpu" else f" ({where})")


def loss_cell(metric: dict) -> str:
    """Student's value, and its loss against the teacher with the paired interval."""
    text = f"{100 * metric['student']:.2f} ({100 * metric['loss']:+.2f}"
    if metric["loss_interval"]:
        low, high = metric["loss_interval"]
        text += f" [{100 * low:.2f}, {100 * high:.2f}]"
    return text + ")"


if __name__ == "__main__":
    main()
