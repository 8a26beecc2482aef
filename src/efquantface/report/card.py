"""MODEL_CARD.md: describes a student in the format of model hubs (YAML, then Markdown)."""

from __future__ import annotations

import yaml

from efquantface.recipe import FLOAT
from efquantface.report.deploying import onnxruntime_code
from efquantface.report.results import FILE, Results, formatted, formatted_interval, percent
from efquantface.report.verdict import GALLERY_RULE, RULE, Verdict
from efquantface.text import plain

_LICENCE = "other"
_TAGS = ("face-recognition", "face-verification", "onnx")


def model_card(results: Results) -> str:
    """The text of a run's model card.

    Args:
        results: of the run, with its provenance.
    """
    verdict, made = results.verdict, results.provenance
    assert made is not None
    bits = str(results.recipe["bits"])
    contract = results.contract
    head = {
        "license": _LICENCE,
        **({"license_name": plain(made.licence)} if made.licence else {}),
        "library_name": "onnxruntime",
        "pipeline_tag": "image-feature-extraction",
        "tags": [
            "face-recognition",
            "face-verification",
            "onnx",
            *(["quantized", bits] * (bits != FLOAT)),
        ],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {plain(results.teacher)}: {'pruned' if bits == FLOAT else bits.upper()}",
        "",
        f"**{verdict.headline}**",
        "",
        *(f"{line}\n" for line in (verdict.threshold, verdict.galleries) if line),
        f"`{FILE}`: {results.sizes.student_bytes / 1e6:.2f} MB "
        f"(teacher {results.sizes.teacher_bytes / 1e6:.2f} MB); {results.parity.portability}.",
        "",
        "## Use",
        "",
        f"Crops: {contract.describe()}.",
        "",
        "```python",
        *onnxruntime_code(contract),
        "```",
        "",
        "## Evaluation",
        "",
        *_evaluation(results, verdict),
        "## Where it comes from",
        "",
        f"- made {made.date} by `{plain(made.command)}`",
        f"- SHA-256 (first digits): teacher {made.teacher}, faces {made.faces}, student {made.student}",
        f"- {', '.join(f'{name} {version}' for name, version in made.versions.items())}",
        f"- measured on {results.processor}",
        f"- licence of the teacher: {plain(made.licence) or 'not stated; the teacher decides'}",
        "",
        "## Limits",
        "",
        "It recognizes what the teacher recognizes, and has the teacher's biases. Measure it on "
        "people like those it will see. Embeddings are biometric data.",
        "",
    ]
    return "\n".join(lines)


def _evaluation(results: Results, verdict: Verdict) -> list[str]:
    lines = []
    for protocol in results.protocols:
        lines += [
            f"{plain(protocol.protocol)}: {protocol.counted}; {protocol.flags}.",
            "",
            "| | teacher | student | loss | 95 % of the loss |",
            "|---|--:|--:|--:|--:|",
        ]
        for metric in protocol.metrics:
            loss = "" if metric.loss is None else percent(metric.loss)
            cells = (
                plain(metric.name),
                formatted(metric, metric.teacher),
                formatted(metric, metric.student),
                loss,
                formatted_interval(metric.loss_interval),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return [*lines, *([f"{RULE} {GALLERY_RULE}", ""] if verdict.rows else [])]
