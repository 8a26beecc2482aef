"""The command line as a function: words in, exit code out."""

from __future__ import annotations

import sys
from pathlib import Path

from efquantface.cli.main import main


def efq(*words: str | Path) -> int:
    """Run ``efq WORDS`` in this process; its exit code."""
    before, sys.argv = sys.argv, ["efq", *map(str, words)]
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv = before
    return 0
