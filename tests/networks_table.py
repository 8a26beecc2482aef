"""The page of networks' table, made from what the tests cover.

``python tests/networks_table.py`` writes it into ``docs/reference/networks.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from project import ROOT

PAGE = ROOT / "docs" / "reference" / "networks.md"
_BEGIN, _END = "<!-- table: networks -->\n\n", "\n\n<!-- end of table -->"
_NAMES, _NEW = "importers/test_recognize.py", "importers/test_new_backbones.py"
_ONNX = "importers/onnx"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        file: what is given, in words.
        kinds: what of it is recognized, and the tests that cover it (``FILE::FUNCTION`` in ``tests``).
    """

    file: str
    kinds: dict[str, tuple[str, ...]]


ROWS = (
    Row(
        "PyTorch (`.pth`, `.pt`, Lightning `.ckpt`) and safetensors, by their tensors' names",
        {
            "arcface_torch IResNet-18/34/50/100/200": (
                f"{_NAMES}::test_arcface_torch_iresnet",
                "backbones/test_registry.py::test_the_whole_way",
            ),
            "MobileFaceNet (`mbf`, `mbf-large`)": (f"{_NAMES}::test_arcface_torch_mbf",),
            "and ViT": (f"{_NEW}::test_vit",),
            "MagFace": (f"{_NAMES}::test_magface",),
            "IR with and without SE of AdaFace, CVLFace, TFace": (
                f"{_NAMES}::test_adaface_in_a_lightning_checkpoint",
            ),
            "InsightFace_Pytorch, face.evoLVe and CurricularFace": (
                f"{_NAMES}::test_ir_of_five_units",
            ),
            "MobileFaceNet of InsightFace_Pytorch, face.evoLVe, QuantFace": (
                f"{_NAMES}::test_quantface_mobilefacenet",
            ),
            "and foamliu": (
                "real/test_networks.py::test_checkpoint_equals_the_onnx_of_the_same_network",
            ),
            "EdgeFace": (f"{_NAMES}::test_edgeface_by_its_authors_names",),
            "FaceNet of facenet-pytorch": (f"{_NEW}::test_facenet",),
            "GhostFaceNet of ellzaf_ml": (f"{_NEW}::test_ghostfacenet",),
            "LightCNN-9 and -29": (f"{_NEW}::test_lightcnn",),
        },
    ),
    Row(
        "ONNX, opset 8 to 23",
        {
            "InsightFace's (mxnet and PyTorch exports": (f"{_ONNX}/test_forms.py::test_mxnet_exports",),
            "half precision": (f"{_ONNX}/test_forms.py::test_half_precision",),
            "external data": (f"{_ONNX}/test_forms.py::test_external_data",),
            "fixed or baked batch": (f"{_ONNX}/test_graph.py::test_baked_batch_is_freed",),
            "several outputs)": (f"{_ONNX}/test_forms.py::test_several_outputs",),
            "EdgeFace": ("real/test_networks.py::test_imported_network_equals_its_file",),
            "TensorFlow's": (
                f"{_ONNX}/test_tensorflow.py::test_form",
                f"{_ONNX}/test_tensorflow.py::test_windows",
            ),
            "NHWC, uint8 or grey inputs": (
                f"{_ONNX}/test_inputs.py::test_other_layouts_and_types",
            ),
            "flip-and-add": (f"{_ONNX}/test_inputs.py::test_flip_and_add",),
            "open sizes": (f"{_ONNX}/test_sizes.py::test_a_dense_layer_settles_height_and_width",),
            "any ending": (
                "pipeline/test_any_end.py::test_an_end_is_imported_and_compressed",
                f"{_ONNX}/test_norms.py::test_a_form_is_one_operator",
            ),
            "MobileNetV3, Ghost and MFM blocks": (f"{_ONNX}/test_blocks.py::test_block",),
            "activations and norms": (f"{_ONNX}/test_activations.py::test_activation",),
            "attention": (
                f"{_ONNX}/test_transformers.py::test_network",
                f"{_ONNX}/test_transformers.py::test_attention_as_one_node",
            ),
        },
    ),
)  # fmt: skip


def rendered() -> str:
    """The table in Markdown; a kind that begins with "and" goes on with the one before it."""
    lines = ["| file | recognized |", "|---|---|"]
    for row in ROWS:
        text = ", ".join(row.kinds).replace(", and ", " and ")
        lines.append(f"| {row.file} | {text} |")
    return "\n".join(lines)


def stored() -> str:
    """The table as it stands on the page."""
    return PAGE.read_text(encoding="utf-8").split(_BEGIN, 1)[1].split(_END, 1)[0]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.split(_END, 1)[1]
    PAGE.write_text(before + _BEGIN + rendered() + _END + after, encoding="utf-8")
