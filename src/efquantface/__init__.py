"""efquantface: compress face-recognition networks to integers without losing their decisions."""

from efquantface.contract import FaceContract
from efquantface.evaluate import evaluate
from efquantface.pipeline import compress
from efquantface.runtime.embedder import Embedder

__all__ = ["Embedder", "FaceContract", "compress", "evaluate"]
__version__ = "0.1.0"
