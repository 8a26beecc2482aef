"""The runtimes that open model files. No runtime is imported until it is used.

A backend is a line in ``BACKENDS``. PyTorch is not one of them: it runs what importers read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from efquantface.contract import FaceContract
from efquantface.errors import ContractError, RuntimeMissingError

if TYPE_CHECKING:
    from efquantface.runtime.sessions import Run

AUTO, TORCH = "auto", "torch"


@dataclass(frozen=True)
class Backend:
    """A runtime for files.

    Attributes:
        name: as in ``--backend``.
        endings: of the files that it opens. It is the default runtime for the first.
        run: takes a file's path, threads (None for all cores), the device and the output's name in the
            contract. Returns a function from normalized crops float32 (N,3,H,W) to embeddings (N,D).
        contract: reads the contract of such a file; None where importers read it from the graph.
    """

    name: str
    endings: tuple[str, ...]
    run: Callable[[Path, int | None, str, str], Run]
    contract: Callable[[Path], FaceContract] | None = None

    @property
    def takes(self) -> str:
        """The endings in words."""
        return " and ".join(self.endings)


def _onnxruntime(path: Path, threads: int | None, device: str, output: str) -> Run:
    from efquantface.runtime.sessions import onnxruntime_session, run_onnxruntime

    return run_onnxruntime(onnxruntime_session(path, threads, device), output, lenient=True)


def _openvino(path: Path, threads: int | None, device: str, output: str) -> Run:
    from efquantface.runtime.sessions import run_openvino

    return run_openvino(path, threads, device)


def _litert(path: Path, threads: int | None, device: str, output: str) -> Run:
    from efquantface.runtime.litert import run_litert

    return run_litert(path, threads, device)


def contract_beside(path: Path) -> Path:
    """The file with the contract of an OpenVINO file, which cannot hold one."""
    return path.with_suffix(".contract.json")


def _beside(path: Path) -> FaceContract:
    beside = contract_beside(path)
    if not beside.is_file():
        raise ContractError(
            f"{path}: OpenVINO files hold no contract; {beside.name} is missing beside it"
        )
    return FaceContract.read(beside)


def _inside(path: Path) -> FaceContract:
    from efquantface.runtime.litert_file import litert_contract

    return litert_contract(path)


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("onnxruntime", (".onnx",), _onnxruntime),
        Backend("openvino", (".xml", ".onnx"), _openvino, _beside),
        Backend("litert", (".tflite",), _litert, _inside),
    )
}
NAMES = (AUTO, *BACKENDS, TORCH)
ENDINGS = tuple(dict.fromkeys(ending for b in BACKENDS.values() for ending in b.endings))


def own_backend(path: Path) -> Backend | None:
    """The default runtime of a file; None for a checkpoint."""
    return next((b for b in BACKENDS.values() if path.suffix == b.endings[0]), None)


def backend_for(path: Path, wanted: str = AUTO) -> Backend | None:
    """The runtime that opens a file; None where PyTorch does.

    Args:
        path: the file.
        wanted: one of ``NAMES``.

    Raises:
        RuntimeMissingError: the wanted runtime does not open such a file.
    """
    own = own_backend(path)
    if wanted == AUTO or own is None:
        return own
    if path.suffix in (BACKENDS[wanted].endings if wanted in BACKENDS else ()):
        return BACKENDS[wanted]
    if wanted == TORCH and own.contract is None:
        return None
    raise RuntimeMissingError(f"{path}: is opened by --backend {own.name}, not by {wanted}")


def not_exported(wanted: str) -> RuntimeMissingError:
    """The error for a checkpoint and a runtime that opens none."""
    return RuntimeMissingError(
        f"--backend {wanted} takes {BACKENDS[wanted].takes} files; export the model first"
    )
