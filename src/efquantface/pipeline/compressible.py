"""Checks early that a network can be compressed, with the code that compresses it later."""

from __future__ import annotations

from efquantface.errors import EfqError, ModelFileError
from efquantface.export.onnx_writer import to_onnx
from efquantface.graph.model import FaceModel
from efquantface.quantize.placement import quantize, refresh_biases
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.sessions import onnxruntime_session

_SHOWN = 200  # characters of an error of a library


def check_compressible(model: FaceModel, scheme: Scheme | None = None) -> None:
    """Quantize the network, export it and load the file. Nothing is measured or kept.

    Args:
        model: canonical float model.
        scheme: the bits; None: 8 everywhere.

    Raises:
        ModelFileError: the network has no integer form; the message says why.
        RecipeError: the scheme names a layer that the network does not have.
    """
    try:
        student = quantize(model, scheme or Scheme())
        refresh_biases(student.graph)
        file = to_onnx(student, packed=False)
        onnxruntime_session(file.SerializeToString(), threads=1)
    except EfqError as error:
        if str(model.name) in str(error) or not isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{model.name}: has no integer form: {error}") from None
    except (AssertionError, RuntimeError, ValueError, KeyError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN]
        raise ModelFileError(
            f"{model.name}: has no integer form ({reason}); that is a fault of efquantface, please "
            "report it"
        ) from None
