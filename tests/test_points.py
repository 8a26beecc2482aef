"""A few of the points at which a run is killed; ``python -m fuzz.points`` tries all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from project import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_run_killed_at_named_points_ends_with_the_same_student() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.points", "--share", "31"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("the same student") >= 5
