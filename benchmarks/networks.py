"""Every network at hand from its file to an exported W8A8 file, a row each.

    python benchmarks/networks.py --shared ../shared --out runs/networks
    python benchmarks/networks.py --shared ../shared --out runs/networks --iresnet BACKBONE.pth

Rows are runs of `compress` with its defaults on faces6k, evaluated on LFW once, one file each of
benchmarks/results/networks; a row that is there is left alone. The rows of y1 and of foamliu's ONNX are
those of low_bits.py. `--iresnet` adds rows of the network
that train_iresnet18.py made, in W8A8 and W6A6, with losses against itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import low_bits
from low_bits import add_arguments, begin, make_row, read_rows, table

ROWS = Path(__file__).parent / "results" / "networks"
NETWORKS = ("mobileface2.onnx", "foamliu_mobilefacenet.pt", "edgeface_xs.onnx")
ELSEWHERE = ("y1/w8a8 seed 0", "foamliu_mobilefacenet/w8a8 seed 0")  # the same recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--iresnet", type=Path)
    parser.add_argument("--epochs", type=int, default=2, help="of the IResNet's rows")
    args = begin(parser)
    for file in NETWORKS:
        fields = {"teacher": str(args.shared / "weights" / file)}
        make_row(ROWS, args, file, "w8a8", fields)
        make_row(ROWS, args, file, "w8a8 full range", {**fields, "full_range": True}, fake=False)
    for bits in ("w8a8", "w6a6") if args.iresnet else ():
        fields = {"teacher": str(args.iresnet), "bits": bits, "epochs": args.epochs}
        make_row(ROWS, args, "iresnet18", bits, fields, fake=False)  # slow in PyTorch
    others = [row for row in read_rows(low_bits.ROWS) if row["name"] in ELSEWHERE]
    print(table([*read_rows(ROWS), *others]))


if __name__ == "__main__":
    main()
