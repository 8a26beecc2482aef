"""The command line in this process."""

from __future__ import annotations

import sys
from pathlib import Path

from efquantface.cli.main import main


def efq(*words: str | Path) -> int:
    """The exit code of ``efq WORDS``."""
    before, sys.argv = sys.argv, ["efq", *map(str, words)]
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv = before
    return 0
