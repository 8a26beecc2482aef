"""ONNX Runtime and OpenVINO behind one call: float32 input in, float32 embeddings out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.errors import ModelFileError, RuntimeMissingError
from efquantface.text import utf8_name

Float32 = npt.NDArray[np.float32]
Run = Callable[[Float32], Float32]


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_cuda() -> bool:
    """Whether this ONNX Runtime runs on CUDA."""
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
    """An inference session on the CPU, or on CUDA where ``device`` says so, as any client opens it.

    No option is set that changes a number.

    Args:
        model: a file, or serialized bytes.
        threads: intra-op threads; all available cores where None.
        optimized: where to write the graph as the runtime optimized it (to count operators).
        exact_sums: no client's way: sums of 32 bits also on x86 without VNNI, to tell whether a file
            that overflows there holds the right integers at all.
        signed_integers: no client's way either: signed codes in integers on x86, too, as processors
            that want them run them.

    Raises:
        RuntimeMissingError: CUDA was asked for and this onnxruntime has no CUDA provider.
        ModelFileError: ONNX Runtime refuses the file.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads would go on looking for work in a loop, and take a core from whatever runs next
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


def run_onnxruntime(session: Any, output: str | None = None) -> Run:
    """A function from the file's input (N,3,H,W) to its embedding; fixed batches are respected.

    Args:
        session: of the file.
        output: which of several outputs is wanted; the first where None.
    """
    source = session.get_inputs()[0]
    name, batch = source.name, source.shape[0]
    dtype = np.float16 if source.type == "tensor(float16)" else np.float32
    names = [o.name for o in session.get_outputs()]
    output = output if output in names else names[0]

    def call(x: Float32) -> Float32:
        return _rows(session.run([output], {name: x.astype(dtype, copy=False)})[0])

    return _in_batches(call, batch) if isinstance(batch, int) else call


def run_openvino(path: Path, threads: int | None = None, device: str = "cpu") -> Run:
    """Like :func:`run_onnxruntime`, compiled by OpenVINO (reads ``.xml`` and ``.onnx``).

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
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
    batch = compiled.input(0).partial_shape[0]

    def call(x: Float32) -> Float32:
        return _rows(np.array(request.infer({0: x})[0], np.float32))

    return _in_batches(call, batch.get_length()) if batch.is_static else call


def _in_batches(call: Run, batch: int) -> Run:
    """``call``, which takes ``batch`` crops, for any number; the last is repeated where some lack."""

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


def _rows(result: Any) -> Float32:
    array = np.asarray(result, np.float32)
    return array.reshape(len(array), -1)
