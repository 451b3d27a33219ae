"""The guide's code: each page's blocks run, one after the other, as somebody would paste them; those with ``>>>`` are doctests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proto").mkdir()
    shutil.copy(ROOT / "examples" / "proto" / "arena.proto", tmp_path / "proto")
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    names: dict[str, object] = {"__name__": page.stem}
    for match in BLOCK.finditer(text):
        if ">>>" not in match[1]:
            # Empty lines before it, so that a traceback says where on the page it is.
            lines = "\n" * text[: match.start(1)].count("\n")
            exec(compile(lines + match[1], page, "exec", dont_inherit=True), names)
