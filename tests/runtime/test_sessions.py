"""What sessions are opened with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from conftest import SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import to_onnx
from efquantface.importers.load import load_model
from efquantface.runtime import sessions
from students import student_of

CONFIG = ("session.x64quantprecision", "session.qdqisint8allowed", "session.set_denormal_as_zero")


def test_no_option_changes_a_number(network: nn.Module, contract: FaceContract) -> None:
    """A session's options are those of a plain one, but for threads and logging."""
    file = to_onnx(load_model(network, contract=contract)).SerializeToString()
    options = sessions.onnxruntime_session(file).get_session_options()
    plain = ort.InferenceSession(file).get_session_options()
    assert options.graph_optimization_level == plain.graph_optimization_level
    assert options.execution_mode == plain.execution_mode
    for key in CONFIG:
        with pytest.raises(RuntimeError, match=key):  # not set
            options.get_session_config_entry(key)


def test_a_session_gives_what_a_plain_one_gives(contract: FaceContract) -> None:
    """Also where sums can overflow, so that they do in both or in none."""
    torch.manual_seed(0)
    _, student = student_of(randomize(SmallFaceNet()), contract, full_range=True)
    file = to_onnx(student).SerializeToString()
    x = contract.normalize(make_faces().images)
    found = sessions.run_onnxruntime(sessions.onnxruntime_session(file))(x)
    plain = ort.InferenceSession(file).run(None, {"input": x})[0]
    np.testing.assert_array_equal(found, plain)


def test_exact_sums_are_asked_for_by_name(network: nn.Module, contract: FaceContract) -> None:
    file = to_onnx(load_model(network, contract=contract)).SerializeToString()
    options = sessions.onnxruntime_session(file, exact_sums=True).get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_threads_do_not_wait_in_a_loop_between_calls(
    network: nn.Module, contract: FaceContract
) -> None:
    file = to_onnx(load_model(network, contract=contract)).SerializeToString()
    options = sessions.onnxruntime_session(file).get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize("runtime", ["ONNX Runtime", "OpenVINO"])
def test_a_file_of_fixed_batches_takes_any_number(
    runtime: str, network: nn.Module, contract: FaceContract, tmp_path: Path
) -> None:
    file = to_onnx(load_model(network, contract=contract))
    free, fixed = tmp_path / "free.onnx", tmp_path / "fixed.onnx"
    onnx.save(file, str(free))
    for value in (*file.graph.input, *file.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(file, str(fixed))
    shape = (10, 3, contract.height, contract.width)
    x = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    if runtime == "OpenVINO":
        expected, found = (sessions.run_openvino(path)(x) for path in (free, fixed))
    else:
        expected, found = (
            sessions.run_onnxruntime(sessions.onnxruntime_session(path))(x)
            for path in (free, fixed)
        )
    assert found.shape == (10, contract.embedding_size)
    # where the processor has it, OpenVINO computes in bfloat16
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / lengths).min() > 0.999
