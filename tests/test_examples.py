"""The notebooks run from their first cell to their last, and are stored without outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from project import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbclient and ipykernel are not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient and ipykernel are not installed")
pytest.importorskip("ipykernel", reason="nbclient and ipykernel are not installed")

NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb"))


def read(name: str) -> Any:
    return nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module", params=NOTEBOOKS)
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A notebook's name, and what its cells print, executed in an empty folder."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EFQ_CACHE", str(folder / "cache"))
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setenv("TMPDIR", str(folder))
        notebook = read(request.param)
        where = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    return request.param, [shown(cell) for cell in code(notebook)], folder


def shown(cell: Any) -> str:
    """What a cell printed, and its value."""
    return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_without_outputs(name: str) -> None:
    for cell in code(read(name)):
        assert (cell.outputs, cell.execution_count) == ([], None)


def test_what_it_shows(executed: tuple[str, list[str], Path]) -> None:
    name, texts, folder = executed
    whole = "\n".join(texts)
    if name == "compress":
        (report,) = re.findall(r"^(/.*report\.html)$", whole, re.MULTILINE)
        assert Path(report).is_file()
        assert Path(report).is_relative_to(folder)
        rates = re.findall(r"^TAR@FAR=\S+ \+([\d.]+) \+([\d.]+)", whole, re.MULTILINE)
        assert rates
        assert all(abs(float(a) - float(b)) < 0.1 for a, b in rates)
    else:
        assert re.search(r"the same person: 0\.\d+, accepted", whole)
        assert re.search(r"a stranger: -?0\.\d+, rejected", whole)


def test_a_student_is_deployed_without_this_package() -> None:
    made, *deployed = code(read("deploy"))
    assert "efquantface" in made.source
    for cell in deployed:
        imported = re.findall(r"^(?:import|from) (\w+)", cell.source, re.MULTILINE)
        assert set(imported) <= {"json", "cv2", "numpy", "onnxruntime", "PIL"}


def test_its_alignment_is_ours() -> None:
    import cv2
    import numpy as np

    from efquantface.data.template import TEMPLATES, similarity

    (cell,) = (c for c in code(read("deploy")) if "def align" in c.source)
    names: dict[str, Any] = {"np": np, "cv2": cv2}
    exec(cell.source, names)
    template = TEMPLATES["arcface112"].array()
    assert np.array_equal(names["ARCFACE112"], template)
    points = template @ np.array([[1.3, 0.4], [-0.4, 1.3]]) + np.arange(10).reshape(5, 2)
    ours = similarity(points, template)
    assert np.allclose(names["similarity_transform"](points, template), ours)
