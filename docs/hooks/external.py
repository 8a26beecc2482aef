"""Links out of the site.

Addresses are well-formed, files of the repository become text, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_log = logging.getLogger("mkdocs.hooks.external")  # a warning fails a strict build
_LINK = re.compile(r'<a\b[^>]*?\bhref="([a-z][a-z0-9+.-]*:[^"]*)"')
_LOADED = re.compile(r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="(https?://[^"]*)"')
_DOCS = Path(__file__).parents[1]
_RELATIVE = re.compile(r"(?<!!)\[([^]\[]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Links to files of the repository that are not in the site become their text."""

    def text_of(link: re.Match[str]) -> str:
        target = (_DOCS / page.file.src_uri).parent.joinpath(link[2]).resolve()
        outside = _DOCS not in target.parents and target.exists()
        return link[1] if outside else link[0]

    return _RELATIVE.sub(text_of, markdown)


def on_page_content(html: str, page: Any, **_: object) -> str:
    """Warn of links out of the site that lead nowhere by their form."""
    for address in _LINK.findall(html):
        parts = urlsplit(address)
        known = parts.scheme == "https" and "." in parts.netloc and not re.search(r"\s", address)
        if not known and parts.scheme != "mailto":
            _log.warning("%s: %s is no https address", page.file.src_uri, address)
    return html


def on_post_page(output: str, page: Any, **_: object) -> str:
    """Warn of what a page would load from elsewhere."""
    for address in _LOADED.findall(output):
        _log.warning("%s loads %s", page.file.src_uri, address)
    return output
