"""What scripts have in common: how they are called, and networks by name."""

from __future__ import annotations

import argparse
from pathlib import Path

from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model

from .suites import NETWORKS


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring as it is written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_runs(parser: argparse.ArgumentParser, crops: int | None = None) -> None:
    """Where runs of networks, their teachers and LFW are.

    Args:
        crops: of LFW where ``--crops`` does not say it; None takes all.
    """
    parser.add_argument("--shared", type=Path, required=True, help="weights/ and data/")
    parser.add_argument(
        "--runs", type=named, nargs="+", required=True, metavar="NAME=RUN",
        help="folders of efq compress; NAME begins with a network, like mobileface2/w4a8",
    )  # fmt: skip
    parser.add_argument("--dlib", type=Path, metavar="LFW", help="crops of LFW for dlib's network")
    parser.add_argument("--crops", type=int, default=crops, help="of LFW")


def named(text: str) -> tuple[str, Path]:
    """``NETWORK=RUN``, or ``NETWORK/WORDS=RUN``.

    Raises:
        argparse.ArgumentTypeError: there is no such network, or no such run.
    """
    name, _, path = text.partition("=")
    run = Path(path)
    if network_of(name) not in NETWORKS or not (run / "student.safetensors").is_file():
        known = ", ".join(NETWORKS)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NETWORK=RUN, one of {known} and a folder of efq compress"
        )
    return name, run


def network_of(name: str) -> str:
    """The network of a name like ``mobileface2/w4a8``."""
    return name.partition("/")[0]


def teacher_of(name: str, shared: Path) -> FaceModel:
    """A network's teacher."""
    network = NETWORKS[network_of(name)]
    return load_model(network.path(shared), preprocess=network.preprocess)


def lfw_folder(name: str, args: argparse.Namespace) -> Path:
    """LFW in the crops that a network takes.

    Raises:
        SystemExit: they are dlib's and were not given.
    """
    if not NETWORKS[network_of(name)].dlib:
        return Path(args.shared) / "data" / "lfw112"
    if args.dlib is None:
        raise SystemExit("dlib's network takes crops of its own: --dlib LFW (benchmarks/README.md)")
    return Path(args.dlib)
