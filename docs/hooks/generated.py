"""Pages made from the repository's own files when the site is built.

Home is the README, and the changelog is CHANGELOG.md. The command line's reference is typer's.
An example is its notebook. So each text is written once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_FILES = ("LICENSE", "CITATION.cff")
_CLI = "reference/cli.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and files that the site takes from outside of ``docs``."""
    made = {page: moved((ROOT / source).read_text("utf-8")) for source, page in _PAGES.items()}
    made |= {name: (ROOT / name).read_text("utf-8") for name in _FILES}
    made[_CLI] = command_line()
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        text = notebook.read_text("utf-8")
        made[f"examples/{notebook.name}"] = text
        made[f"examples/{notebook.stem}.md"] = page_of(json.loads(text), notebook.name)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def moved(text: str) -> str:
    """A page of the repository's root with links as they are in the site."""
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(r"\]\(examples/(\w+)\.ipynb\)", r"](examples/\1.md)", text)
    for source, page in _PAGES.items():
        text = re.sub(rf"\]\({re.escape(source)}(?=[#)])", f"]({page}", text)
    return text


def command_line() -> str:
    """Every verb and option, as typer documents them."""
    command = [sys.executable, "-m", "typer", "efquantface.cli.main", "utils", "docs"]
    done = subprocess.run(
        [*command, "--name", "efq"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text = done.stdout.replace("# `efq`\n", "# Command line\n", 1)
    whole = dict(re.findall(r"^##+ `efq ([\w -]+)`\n\n(.+)$", text, re.MULTILINE))

    def in_full(cut: re.Match[str]) -> str:
        """A verb of a list, with its first sentence whole."""
        group = re.findall(r"^## `efq ([\w-]+)`$", text[: cut.start()], re.MULTILINE)
        known = whole.get(" ".join([*group[-1:], cut[1]])) or whole.get(cut[1])
        return f"* `{cut[1]}`: {known}" if known else cut[0]

    return re.sub(r"^\* `([\w-]+)`: (.+\.\.\.)$", in_full, text, flags=re.MULTILINE)


def page_of(notebook: dict[str, Any], name: str) -> str:
    """A notebook's cells as a page; outputs are not shown, since none are stored."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, _, rest = parts[0].partition("\n")
    parts[0] = f"{title}\n\nThe notebook: [{name}]({name}).\n{rest}"
    return "\n\n".join(parts) + "\n"
