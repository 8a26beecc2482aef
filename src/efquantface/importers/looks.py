"""What a network looks like, judged by its inputs and outputs. Needs onnx only.

Packs for face analysis hold detectors, landmark networks and attribute networks beside the recognizer.
Classifiers end in one value per person. None of these gives an embedding.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from efquantface.errors import NotRecognizingError
from efquantface.importers.onnx.proto import LEAST_EMBEDDING, stored_names

_MOST = 4096  # values of an embedding, at most; more are one per class
_MANY = 5  # outputs, more than recognizers have
_CLASSES = frozenset({2622})  # VGG-Face's classifier
# two or three coordinates per point: 68, 98, 106 and 468 points, and InsightFace's 1k3d68
_LANDMARKS = {136: 68, 196: 98, 204: 68, 212: 106, 936: 468, 1404: 468, 3309: 68}
_FEW = {
    1: "a score (quality, age or liveness)",
    2: "two classes (gender or liveness)",
    3: "gender and age",
    4: "a box",
    7: "expressions",
    8: "expressions",
    10: "five landmarks",
}
RECOGNITION, DETECTOR = "recognition", "a detector"
_WHOLE = "give the recognition network of the same pack"


def looks_like(model: onnx.ModelProto) -> str:
    """What a network is for, in a few words; ``RECOGNITION`` where nothing contradicts it."""
    stored = stored_names(model)
    inputs = [i for i in model.graph.input if i.name not in stored]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) not in (0, 4):
        return "no network of one image"
    given = [_values(o) for o in model.graph.output]
    if len(given) == 1 and given[0]:
        return what_gives(given[0])
    said = [v for v in given if v is not None or len(given) >= _MANY]
    if len(said) == len(given) > 1 and not any(LEAST_EMBEDDING <= (v or 0) <= _MOST for v in said):
        return DETECTOR
    return RECOGNITION  # as far as the file declares it; more is known when it is read


def _values(output: onnx.ValueInfoProto) -> int | None:
    """Values per face of an output; 0 where it is no vector, None where the file does not declare it."""
    if not output.type.tensor_type.HasField("shape"):
        return None
    dims = [d.dim_value for d in output.type.tensor_type.shape.dim]
    long = [d for d in (dims[1:] if len(dims) > 1 else dims) if d != 1]
    if len(long) > 1:
        return 0
    return (long[0] or None) if long else 1


def what_gives(values: int) -> str:
    """What kind of network gives so many values per face.

    >>> what_gives(212), what_gives(8631), what_gives(512)
    ('106 landmarks', 'a classifier of 8,631 people', 'recognition')
    """
    if values < LEAST_EMBEDDING:
        return _FEW.get(values, f"{values} scores")
    if values in _LANDMARKS:
        return f"{_LANDMARKS[values]} landmarks"
    if values > _MOST or values in _CLASSES:
        return f"a classifier of {values:,} people"
    return RECOGNITION


def refuse_detectors(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a file whose outputs are a detector's.

    Raises:
        NotRecognizingError: the file looks like a detector.
    """
    if looks_like(model) == DETECTOR:
        names = ", ".join(repr(o.name) for o in model.graph.output[:4])
        raise NotRecognizingError(
            f"{path}: looks like {DETECTOR}: its {len(model.graph.output)} outputs ({names}, ...) are "
            f"no embedding; {_WHOLE}"
        )


def no_embedding(values: int) -> str | None:
    """Why so many values per face are no embedding, as a sentence; None where they can be one."""
    look = what_gives(values)
    if look == RECOGNITION:
        return None
    way_out = _WHOLE
    if look.startswith("a classifier"):
        way_out = (
            "end it at the embedding before its last layer: onnx.utils.extract_model(FILE, NEW_FILE, "
            "[INPUT], [TENSOR])"
        )
    return (
        f"gives {values:,} values for a face: looks like {look}, not like an embedding; {way_out}"
    )
