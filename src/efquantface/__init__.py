"""efquantface: compress face-recognition networks to integers without losing their decisions."""

from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.pipeline.compress import compress
from efquantface.verbs.evaluate import evaluate

__all__ = ["Embedder", "FaceContract", "compress", "evaluate"]
__version__ = "0.1.0"
