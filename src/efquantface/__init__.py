"""efquantface: compress face-recognition networks to integers without losing their decisions.

A name is imported when it is first used. So ``Embedder`` of an ONNX file and ``evaluate`` work without
PyTorch, and do not wait for its import; ``compress`` needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from efquantface.runtime.waiting import wait_briefly

if TYPE_CHECKING:
    from efquantface.callbacks import Callback
    from efquantface.console import set_verbosity
    from efquantface.contract import FaceContract
    from efquantface.embedding.embedder import Embedder
    from efquantface.errors import (
        AssetError,
        ContractError,
        CropError,
        DataError,
        EfqError,
        EvaluationError,
        ExportError,
        FinishedError,
        ImportMismatchError,
        MissingPackageError,
        ModelFileError,
        NotRecognizingError,
        NotRunnableError,
        OutOfMemoryError,
        ParityError,
        PreprocessError,
        RecipeError,
        RunError,
        RuntimeMissingError,
        TargetError,
        TrainingError,
        UnsupportedOperatorError,
        WriteError,
    )
    from efquantface.pipeline.compress import compress
    from efquantface.pipeline.method import CompressResult
    from efquantface.recipe import Recipe
    from efquantface.verbs.embed import embed_faces
    from efquantface.verbs.evaluate import evaluate
    from efquantface.verbs.gallery import embed_gallery
    from efquantface.verbs.succession import compare_gallery

__all__ = [
    "AssetError",
    "Callback",
    "CompressResult",
    "ContractError",
    "CropError",
    "DataError",
    "EfqError",
    "Embedder",
    "EvaluationError",
    "ExportError",
    "FaceContract",
    "FinishedError",
    "ImportMismatchError",
    "MissingPackageError",
    "ModelFileError",
    "NotRecognizingError",
    "NotRunnableError",
    "OutOfMemoryError",
    "ParityError",
    "PreprocessError",
    "Recipe",
    "RecipeError",
    "RunError",
    "RuntimeMissingError",
    "TargetError",
    "TrainingError",
    "UnsupportedOperatorError",
    "WriteError",
    "__version__",
    "compare_gallery",
    "compress",
    "embed_faces",
    "embed_gallery",
    "evaluate",
    "set_verbosity",
]
__version__ = "0.1.0"

wait_briefly()

_PLACES = {
    "Callback": "callbacks",
    "CompressResult": "pipeline.method",
    "Embedder": "embedding.embedder",
    "FaceContract": "contract",
    "Recipe": "recipe",
    "compare_gallery": "verbs.succession",
    "compress": "pipeline.compress",
    "embed_faces": "verbs.embed",
    "embed_gallery": "verbs.gallery",
    "evaluate": "verbs.evaluate",
    "set_verbosity": "console",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from efquantface.extras import wanted_for

    with wanted_for(f"efquantface.{name}"):
        value = getattr(import_module(f"{__name__}.{_PLACES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
