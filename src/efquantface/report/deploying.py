"""Code that loads a student without this package, in plain ONNX Runtime or InsightFace."""

from __future__ import annotations

from efquantface.contract import FaceContract
from efquantface.report.results import FILE

_INSIGHTFACE = (127.5, 127.5, 127.5)


def onnxruntime_code(contract: FaceContract) -> list[str]:
    """Lines of Python that compare two crops in plain ONNX Runtime."""
    channels = "crops" if contract.color == "RGB" else "crops[..., ::-1]"
    lines = [
        "import numpy as np",
        "import onnxruntime as ort",
        "",
        f'session = ort.InferenceSession("{FILE}")',
        f"# crops: uint8 RGB (N, {contract.height}, {contract.width}, 3), template {contract.template}",
        f"x = {channels}.astype(np.float32)",
    ]
    if not contract.is_raw_pixels:
        lines.append(f"x = (x - {_number(contract.mean)}) / {_number(contract.std)}")
    return [
        *lines,
        f'(rows,) = session.run(None, {{"{contract.input_name}": x.transpose(0, 3, 1, 2)}})',
        "rows /= np.linalg.norm(rows, axis=1, keepdims=True)",
        "similarity = rows[0] @ rows[1]",
    ]


def insightface_code(contract: FaceContract) -> list[str]:
    """Lines of Python that compare two crops in InsightFace; none for another normalization."""
    if contract.color != "RGB":
        return []
    if not contract.is_raw_pixels and (contract.mean, contract.std) != (_INSIGHTFACE, _INSIGHTFACE):
        return []
    return [
        "from insightface.model_zoo import get_model",
        "",
        f'model = get_model("{FILE}", providers=["CPUExecutionProvider"])',
        "rows = model.get_feat([crop[..., ::-1] for crop in crops])  # BGR",
        "similarity = model.compute_sim(rows[0], rows[1])",
    ]


def _number(values: tuple[float, float, float]) -> str:
    """Python for three values: one number where all are the same."""
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return f"np.float32([{', '.join(f'{value:g}' for value in values)}])"
