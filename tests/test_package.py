"""What is shipped: the names in sdist and wheel, and metadata that agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from efquantface import __version__
from project import PYPROJECT, ROOT

PROJECT = PYPROJECT["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_sdist_holds_the_source_and_no_measured_rows(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        sizes = [member.size for member in archive.getmembers()]
    source = {str(p.relative_to(ROOT)) for p in (ROOT / "src").rglob("*.py")}
    tests = {str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("*.py")}
    assert source | tests <= names
    assert {"LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "README.md"} <= names
    assert any(name.startswith("recipes/") for name in names)
    documents = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.ipynb")]
    assert {str(path.relative_to(ROOT)) for path in documents} <= names
    suffixes = {Path(name).suffix or Path(name).name for name in names}
    assert suffixes <= {
        *(".py", ".md", ".yaml", ".toml", ".txt", ".cff", ".j2", ".typed"),
        *(
            ".html",
            ".css",
            ".js",
            ".yml",
            ".ipynb",
            "LICENSE",
            "Makefile",
            "PKG-INFO",
            ".gitignore",
        ),
    }
    assert not [n for n in names if n.startswith(("benchmarks/results", "docs/images"))]
    assert max(sizes) < 200_000


def test_wheel_holds_the_package_its_types_and_its_licence(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = set(archive.namelist())
        (found,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(found))
    package = ROOT / "src"
    source = {str(p.relative_to(package)) for p in package.rglob("*.py")}
    site = {str(p.relative_to(package)) for p in package.glob("efquantface/formats/site/*")}
    assert len(site) > 5
    assert source | site | {"efquantface/py.typed", "efquantface/report/page.html.j2"} <= names
    outside = {n.split("/")[0] for n in names} - {"efquantface"}
    assert outside == {f"efquantface-{__version__}.dist-info"}
    assert f"efquantface-{__version__}.dist-info/licenses/LICENSE" in names
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] == __version__


def test_urls_are_files_of_the_repository() -> None:
    for name, place in PROJECT["urls"].items():
        assert (ROOT / place).is_file(), name


def test_pythons_agree() -> None:
    """Classifiers, the lowest Python and the workflow's matrix."""
    marked = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    matrix = workflow["jobs"]["matrix"]["strategy"]["matrix"]
    assert matrix["python"] == marked
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert lowest == marked[0]
    (oldest,) = matrix["include"]
    assert (oldest["python"], oldest["resolution"]) == (lowest, "lowest-direct")


def test_every_requirement_has_a_lower_bound() -> None:
    """Without it the workflow's oldest packages would be those of another decade."""
    extras = PROJECT["optional-dependencies"]
    listed = [r for part in extras.values() for r in part]
    assert [r for r in PROJECT["dependencies"] + listed if ">=" not in r and "[" not in r] == []


def test_versions_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[?([^]\s]+)\]?", changelog, re.MULTILINE)
    assert releases[:2] == ["Unreleased", __version__]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == __version__
    assert citation["license"] == PROJECT["license"]


def test_hooks_run_what_the_virtual_environment_has() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text()
    for hook in hooks:
        folder, program = hook["entry"].split()[0].rsplit("/", 1)
        assert folder == ".venv/bin"
        assert f"$(BIN)/{program}" in makefile
