"""Runs ``.tflite`` files in LiteRT: float32 crops in, float32 embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.errors import ModelFileError, RuntimeMissingError
from efquantface.runtime.litert_file import read_checked
from efquantface.runtime.sessions import Float32, Run, default_threads

Array = npt.NDArray[Any]


def run_litert(path: Path, threads: int | None = None, device: str = "cpu") -> Run:
    """A function from normalized crops float32 (N,3,H,W) to embeddings float32 (N,D), for any N.

    Raises:
        RuntimeMissingError: LiteRT is not installed, or ``device`` is not ``cpu``.
        ModelFileError: the file is damaged, was written by another program, or is refused by LiteRT.
    """
    if device != "cpu":
        raise RuntimeMissingError(f"LiteRT runs on --device cpu here, not {device}")
    data, _ = read_checked(path)
    interpreter = Interpreter(data, str(path), threads)
    return lambda x: np.asarray(interpreter(x)[0], np.float32)


class Interpreter:
    """A file in LiteRT.

    Args:
        data: the file, checked by :func:`read_checked`.
        where: its name, for errors.
        threads: None takes all cores.
        builtin: use LiteRT's own kernels, not XNNPACK's, which are the default for clients.

    Raises:
        RuntimeMissingError: LiteRT is not installed.
        ModelFileError: LiteRT refuses the file.
    """

    def __init__(
        self, data: bytes, where: str, threads: int | None = None, builtin: bool = False
    ) -> None:
        try:
            from ai_edge_litert import interpreter as litert
        except ImportError:
            raise RuntimeMissingError(
                "LiteRT is not installed; pip install 'efquantface[litert]'"
            ) from None
        kinds = litert.OpResolverType
        kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else kinds.AUTO
        self.where = where
        try:
            self._made: Any = litert.Interpreter(
                model_content=data,
                num_threads=threads or default_threads(),
                experimental_op_resolver_type=kind,
            )
            self._made.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelFileError(f"{where}: LiteRT does not load it ({_line(error)})") from None
        self._source = self._made.get_input_details()[0]["index"]
        self._batch = 1

    def __call__(self, x: Float32) -> list[Array]:
        """All outputs for normalized crops float32 (N,3,H,W)."""
        crops = np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.float32)
        if len(crops) != self._batch:
            self._made.resize_tensor_input(self._source, crops.shape)
            self._made.allocate_tensors()
            self._batch = len(crops)
        self._made.set_tensor(self._source, crops)
        self._made.invoke()
        outputs = self._made.get_output_details()
        return [self._made.get_tensor(output["index"]) for output in outputs]

    def is_whole(self) -> bool:
        """Whether XNNPACK computes the whole graph, in one part."""
        parts = [op for op in self._made._get_ops_details() if op["op_name"] == "DELEGATE"]
        ends = (self._made.get_input_details(), self._made.get_output_details())
        inputs, outputs = ({end["index"] for end in found} for found in ends)
        if len(parts) != 1:
            return False
        computed = {t for op in self._made._get_ops_details() for t in op["outputs"]}
        read = set(parts[0]["inputs"]) & (computed | inputs)
        return read == inputs and outputs <= set(parts[0]["outputs"])


def _line(error: Exception) -> str:
    """An error's text, in one line."""
    return " ".join(str(error).split())[:200]
