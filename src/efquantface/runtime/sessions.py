"""Runs files in ONNX Runtime and OpenVINO: float32 crops in, float32 embeddings out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.errors import ModelFileError, RuntimeMissingError
from efquantface.runtime.feeding import Layout, fed, layout_of
from efquantface.text import utf8_name

Float32 = npt.NDArray[np.float32]
Run = Callable[[Float32], Float32]


def default_threads() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_cuda() -> bool:
    """Whether this ONNX Runtime has CUDA."""
    import onnxruntime as ort

    return "CUDAExecutionProvider" in ort.get_available_providers()


def onnxruntime_session(
    model: Path | bytes,
    threads: int | None = None,
    device: str = "cpu",
    optimized: Path | None = None,
    exact_sums: bool = False,
    signed_integers: bool = False,
) -> Any:
    """An inference session as any client opens it.

    By default no option is set that changes a number.

    Args:
        model: a file, or serialized bytes.
        threads: intra-op threads; None takes all cores.
        device: ``cpu`` or ``cuda``.
        optimized: a file to write the runtime's optimized graph to (to count operators).
        exact_sums: add in 32 bits on x86 without VNNI, too, which clients do not. It tells whether a
        file
            that overflows there holds the right integers.
        signed_integers: compute with signed codes in integers on x86, too, which clients do not. Other
            processors do so.

    Raises:
        RuntimeMissingError: the device is not known, or this onnxruntime has no CUDA provider.
        ModelFileError: ONNX Runtime refuses the file.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # idle threads must not spin, since they would take cores from whatever runs next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    providers = ["CPUExecutionProvider"]
    if device != "cpu" and not device.startswith("cuda"):
        raise RuntimeMissingError(f"device {device!r} is not known; use cpu or cuda")
    if device.startswith("cuda"):
        if not has_cuda():
            raise RuntimeMissingError(
                "this onnxruntime has no CUDA provider; install onnxruntime-gpu or use --device cpu"
            )
        providers.insert(0, "CUDAExecutionProvider")
    source = model if isinstance(model, bytes) else utf8_name(model)
    if signed_integers:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    if exact_sums:
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(source, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own classes, all from one base
        text = str(error).splitlines()[0]
    name = "model in memory" if isinstance(model, bytes) else str(model)
    raise ModelFileError(f"{name}: ONNX Runtime does not load it ({text})")


def run_onnxruntime(session: Any, output: str | None = None, *, lenient: bool = False) -> Run:
    """A function from normalized crops float32 (N,3,H,W) to embeddings float32 (N,D), for any N.

    Crops are fed in the file's own layout, type and batch size (:mod:`efquantface.runtime.feeding`).

    Args:
        session: of the file.
        output: the name of the output; None, or a name that the file does not have, takes the first.
        lenient: feed one crop at a time to a file that leaves its batch open and fails with several.
    """
    source = session.get_inputs()[0]
    layout = layout_of(source.shape) or Layout(None, None, None)
    names = [o.name for o in session.get_outputs()]
    output = output if output in names else names[0]

    def call(x: Float32) -> Float32:
        result = session.run([output], {source.name: fed(x, layout, source.type)})[0]
        return _rows(result, len(x))

    def quiet(x: Float32) -> Float32:
        found = run_quietly(session, {source.name: fed(x, layout, source.type)})
        return _rows(found[names.index(output)], len(x))

    if layout.batch:
        return _in_batches(call, layout.batch)
    return _one_by_one_where_needed(call, quiet) if lenient else call


def run_quietly(session: Any, feeds: dict[str, npt.NDArray[Any]]) -> list[Any]:
    """All outputs of a session; a failing runtime raises and prints nothing."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    results: list[Any] = session.run(None, feeds, options)
    return results


def _one_by_one_where_needed(call: Run, trial: Run) -> Run:
    """``call``, or calls of one crop each where ``trial`` fails with two crops."""
    takes_several: list[bool] = []

    def run(x: Float32) -> Float32:
        if len(x) > 1 and not takes_several:
            try:
                trial(x[:2])
                takes_several.append(True)
            except (
                Exception
            ):  # runtimes raise classes of their own; one crop says what else is wrong
                takes_several.append(False)
        return call(x) if len(x) == 1 or takes_several[0] else _in_batches(call, 1)(x)

    return run


def run_openvino(path: Path, threads: int | None = None, device: str = "cpu") -> Run:
    """Like :func:`run_onnxruntime`, in OpenVINO (for ``.xml`` and ``.onnx``).

    Raises:
        RuntimeMissingError: OpenVINO is not installed, or ``device`` is not ``cpu``.
        ModelFileError: OpenVINO refuses the file.
    """
    try:
        import openvino as ov
    except ImportError:
        raise RuntimeMissingError(
            "OpenVINO is not installed; pip install 'efquantface[openvino]'"
        ) from None
    if device != "cpu":
        raise RuntimeMissingError(f"OpenVINO runs on --device cpu here, not {device}")
    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": threads or default_threads(), "NUM_STREAMS": 1}
    try:
        compiled = core.compile_model(utf8_name(path), "CPU", config)
    except RuntimeError as error:
        text = str(error).splitlines()[-1]
        raise ModelFileError(f"{path}: OpenVINO does not load it ({text})") from None
    request = compiled.create_infer_request()
    source = compiled.input(0)
    shape = [size.get_length() if size.is_static else None for size in source.partial_shape]
    layout = layout_of(shape) or Layout(None, None, None)
    element = f"tensor({source.element_type.to_dtype().name})"

    def call(x: Float32) -> Float32:
        found = request.infer({0: fed(x, layout, element)})[0]
        return _rows(np.array(found, np.float32), len(x))

    return _in_batches(call, layout.batch) if layout.batch else call


def _in_batches(call: Run, batch: int) -> Run:
    """``call``, which takes ``batch`` crops, for any number; the last crop pads an incomplete batch."""

    def run(x: Float32) -> Float32:
        parts = []
        for start in range(0, len(x), batch):
            part = x[start : start + batch]
            missing = batch - len(part)
            if missing:
                part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            parts.append(call(part)[: batch - missing])
        return np.concatenate(parts)

    return run


def _rows(result: Any, count: int) -> Float32:
    """A result as embeddings float32 (N,D) of ``count`` crops.

    Raises:
        ValueError: it has another number of rows.
    """
    array = np.asarray(result, np.float32)
    if count > 1 and array.shape[:1] != (count,):
        raise ValueError(f"{count} crops give a result of shape {array.shape}")
    return array.reshape(count, -1)
