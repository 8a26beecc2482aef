"""A folder to serve: a page that compares two faces, and the model that the browser runs.

The page's own files are in ``site/`` beside this module. The runtime is too large for this package. It
comes from npm, with the package.json that is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from efquantface.contract import FaceContract
from efquantface.data.template import TEMPLATES
from efquantface.errors import (
    ContractError,
    DataError,
    ExportError,
    ModelFileError,
    ParityError,
)
from efquantface.export.stated import contract_differences
from efquantface.files import below, make_folder, write_bytes, write_text
from efquantface.formats.measured import decisions
from efquantface.formats.table import FORMATS, Choices, Format
from efquantface.graph.model import FaceModel
from efquantface.reading import parse_json
from efquantface.runtime.sessions import Run

CONTRACT, SETTINGS, PACKAGES = "contract.json", "efquantface.json", "package.json"


@dataclass(frozen=True)
class Runtime:
    """A runtime in the browser.

    Attributes:
        format: the format of the file that it runs.
        checked_by: the package that runs the file here, and the extra with this package.
        packages: its packages on npm, in the versions that were tried.
    """

    format: str
    checked_by: tuple[str, str]
    packages: dict[str, str]

    @property
    def name(self) -> str:
        """The runtime's name: its first package."""
        return next(iter(self.packages))

    def unable(self, model: FaceModel) -> str | None:
        """Why it cannot run a model, or the file cannot be checked here; None where it can."""
        package, extra = self.checked_by
        if find_spec(package) is None:
            return f"its file is checked by {package}; pip install 'efquantface[{extra}]'"
        return FORMATS[self.format].room.refused(model)


# the first that can is taken: LiteRT.js runs integers faster (docs/experiments/2026-11-27-browser.md)
RUNTIMES = {
    "litert": Runtime(
        "tflite",
        ("ai_edge_litert", "litert"),
        {"@litertjs/core": "2.5.3", "@litertjs/wasm-utils": "2.5.3"},
    ),
    "onnxruntime": Runtime("onnx", ("onnxruntime", "compress"), {"onnxruntime-web": "1.30.0"}),
}


def refused(model: FaceModel) -> str | None:
    """None: ONNX Runtime Web can run every operator."""
    return None


def write(model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]:
    """Write the folder; returns lines to print.

    Raises:
        ExportError: the chosen runtime cannot carry the model, or its file cannot be checked here.
    """
    (folder,) = files
    name, why = _runtime_for(model, choices)
    make_folder(folder)
    form = FORMATS[RUNTIMES[name].format]
    written = form.files(folder / f"model{form.suffix}")
    form.room.write(model, written, choices)
    for file, data in _page().items():
        write_bytes(folder / file, data)
    write_text(folder / CONTRACT, model.contract.to_json() + "\n")
    write_text(folder / PACKAGES, _json(_package(name)))
    found = decisions(model.source)
    settings = _settings(model, name, written[0].name, found)
    write_text(folder / SETTINGS, _json(settings))
    size = sum(path.stat().st_size for path in written) / 1e6
    decided = f"decides by thresholds of {found[0]['measured']}" if found else _UNDECIDED
    return [
        f"wrote {folder} (model {size:.2f} MB, run by {RUNTIMES[name].name}{why})",
        f"the page {decided}",
        f"to see it: cd {folder} && npm install --ignore-scripts && python3 -m http.server",
    ]


_UNDECIDED = "makes no decision: no threshold was measured (give a run that was evaluated)"


def check(model: FaceModel, files: Sequence[Path]) -> list[str]:
    """Check the model with its format's check, and that all files of the page are there.

    Raises:
        ParityError: the model, its contract or a file of the page is missing or wrong.
    """
    (folder,) = files
    for file, data in _page().items():
        path = folder / file
        if not path.is_file() or path.read_bytes() != data:
            raise ParityError(f"{path}: is not there, or damaged")
    try:
        contract = FaceContract.read(folder / CONTRACT)
        form, path = _model_of(folder)
    except (ContractError, ModelFileError) as error:
        raise ParityError(f"{folder}: cannot be read back ({error})") from None
    said = contract_differences(contract, model.contract)
    if said:
        raise ParityError(f"{folder / CONTRACT}: {'; '.join(said)}")
    return form.room.check(model, form.files(path))


def open(file: Path, threads: int | None = None) -> Run:
    """The folder's model, in its format's runtime on this machine.

    Raises:
        ModelFileError: the folder is no site, or the runtime refuses its model.
    """
    form, path = _model_of(file)
    return form.room.open(path, threads)


def _model_of(folder: Path) -> tuple[Format, Path]:
    """The format and file of a site's model.

    Raises:
        ModelFileError: the folder does not name them.
    """
    where = folder / SETTINGS
    try:
        settings = parse_json(where.read_bytes())
        form = FORMATS[RUNTIMES[settings["runtime"]].format]
        return form, below(folder, settings["model"], str(where))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise ModelFileError(f"{where}: does not name a site's model ({error})") from None


def _runtime_for(model: FaceModel, choices: Choices) -> tuple[str, str]:
    """The runtime, and why it is not the first one where the user chose none.

    Raises:
        ExportError: the chosen runtime cannot carry the model.
    """
    why = ""
    for name, runtime in RUNTIMES.items():
        if choices.runtime not in ("auto", name):
            continue
        said = runtime.unable(model)
        if said is None:
            return name, why
        why = f"; not by {runtime.name}: {said}"
    raise ExportError(f"{model.name}: cannot be run{why}")


def _page() -> dict[str, bytes]:
    """The files that are the same for every model."""
    place = resources.files(__package__) / "site"
    return {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}


def _package(runtime: str) -> dict[str, Any]:
    return {
        "name": "face-comparison",
        "private": True,
        "type": "module",
        "dependencies": RUNTIMES[runtime].packages,
    }


def _settings(
    model: FaceModel, runtime: str, file: str, found: list[dict[str, Any]]
) -> dict[str, Any]:
    """The settings of the page, beside the contract."""
    contract = model.contract
    template = TEMPLATES.get(contract.template)
    fits = template is not None and contract.height == contract.width == template.size
    source = model.source
    of_run = source is not None and source.name == "student.safetensors"
    return {
        "name": source.absolute().parent.name if source and of_run else Path(model.name).stem,
        "model": file,
        "runtime": runtime,
        "eyes": template.points[:2] if template and fits else None,
        "decisions": found,
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
