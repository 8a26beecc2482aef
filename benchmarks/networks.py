"""Every network at hand from its file to an exported W8A8 file, a row each.

    python benchmarks/networks.py --shared ../shared --out runs/networks
    python benchmarks/networks.py --shared ../shared --out runs/networks --iresnet BACKBONE.pth

Rows are runs of `compress` with its defaults on faces6k, evaluated on LFW once, one file each of
benchmarks/results/networks; a row that is there is left alone. `--iresnet` adds rows of the network
that train_iresnet18.py made, in W8A8 and W6A6, with losses against itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from low_bits import add_arguments, begin, make_row, read_rows, table

ROWS = Path(__file__).parent / "results" / "networks"
NETWORKS = {
    "y1.onnx": None,
    "mobileface2.onnx": None,
    "foamliu_mobilefacenet.onnx": "imagenet",
    "foamliu_mobilefacenet.pt": None,
    "edgeface_xs.onnx": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--iresnet", type=Path)
    args = begin(parser)
    for file, preprocess in NETWORKS.items():
        path = args.shared / "weights" / file
        make_row(ROWS, args, file, "w8a8", {"teacher": str(path), "preprocess": preprocess})
    for bits in ("w8a8", "w6a6") if args.iresnet else ():
        fields = {"teacher": str(args.iresnet), "bits": bits}
        make_row(ROWS, args, "iresnet18", bits, fields)
    print(table(read_rows(ROWS)))


if __name__ == "__main__":
    main()
