"""What is said where a package of an extra is missing."""

from __future__ import annotations

import pytest

from efquantface.errors import EfqError, MissingPackageError
from efquantface.extras import wanted_for


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("torch.nn", "compress"),
        ("jinja2", "compress"),
        ("yuface", "align"),
        ("pyarrow", "parquet"),
        ("fsspec.core", "gallery"),
        ("ray", "ray"),
        ("flatbuffers", "litert"),
        ("ai_edge_litert", "litert"),
    ],
)
def test_the_command_is_said(package: str, extra: str) -> None:
    with (
        pytest.raises(MissingPackageError, match="pruning needs ") as caught,
        wanted_for("pruning"),
    ):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    assert f"pip install 'efquantface[{extra}]'" in str(caught.value)
    assert ("download.pytorch.org/whl/cpu" in str(caught.value)) == (extra == "compress")
    assert isinstance(caught.value, EfqError)


def test_other_import_errors_pass() -> None:
    for error in (ModuleNotFoundError("no", name="mine"), ImportError("no name of its own")):
        with pytest.raises(ImportError) as caught, wanted_for("x"):
            raise error
        assert caught.value is error
