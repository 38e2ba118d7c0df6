"""Build the documentation site into ``site/``; run by ``make docs-site``.

The pages of ``docs/`` are also read on their own, so they link to files outside ``docs/``, and some
pages of the site are such files. This script collects all pages in ``build/docs``, redirects their
links, executes the example notebook, runs the generator in strict mode, and converts formulas to
MathML.
"""

from __future__ import annotations

import html
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAGED = ROOT / "build" / "docs"
SITE = ROOT / "site"
NOTEBOOK = "examples/first_dataset.ipynb"
PAGES_ELSEWHERE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "eval/README.md": "reference/recipes.md",
    "review/checklist.md": "how-to/review-checklist.md",
    "review/guidelines.en.md": "how-to/review-guidelines.md",
    "review/guidelines.zh.md": "zh/review-guidelines.md",
    NOTEBOOK: "tutorials/first-dataset.md",
}
"""Pages of the site that are not in ``docs/``: path in the repository to path in the site."""

_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_CHINESE_LINE = re.compile(
    r"^(?!#)(.*[\u3001-\u303f\u4e00-\u9fff\uff00-\uffef”])\n(?=[\u4e00-\u9fff“（《])", re.MULTILINE
)
"""A line of Chinese that continues in the next line: HTML would show a space between the two."""
_ROLE = re.compile(r":(?:py:)?(?:attr|class|data|func|meth|mod):(?=<code>)")


def page_map() -> dict[str, str]:
    """Every page of the site: path in the repository to path in the site."""
    pages = {}
    for file in sorted((ROOT / "docs").rglob("*")):
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts:
            pages[file.relative_to(ROOT).as_posix()] = file.relative_to(ROOT / "docs").as_posix()
    return pages | PAGES_ELSEWHERE


def with_site_links(text: str, source: str, pages: dict[str, str]) -> str:
    """A page with links to where their targets are in the site; links to other files become text.

    Args:
        text: Markdown.
        source: Its path in the repository.
        pages: See :func:`page_map`.
    """

    def relink(match: re.Match[str]) -> str:
        target = match["target"]
        if ":" in target:  # https:, mailto:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = pages.get(path) or pages.get(f"{path}/index.md")
        if place is None:
            return match["text"]
        link = posixpath.relpath(place, posixpath.dirname(pages[source]))
        return f"[{match['text']}]({link}{match['anchor'] or ''})"

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(relink, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(relink, text[end:])])


def executed_notebook(file: Path, folder: Path) -> Any:
    """A notebook (`nbformat.NotebookNode`) with the outputs of executing it in a folder."""
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    with tempfile.TemporaryDirectory() as sockets:
        manager = {"transport": "ipc", "ip": str(Path(sockets) / "kernel")}
        config = Config({"KernelManager": manager})
        NotebookClient(notebook, timeout=600, resources=place, config=config).execute()
    return notebook


def notebook_page(file: Path) -> str:
    """Execute a notebook and return it as Markdown, tables as HTML."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed_notebook(file, Path(folder))
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source:
            parts.append(f"```python\n{cell.source}\n```")
            parts += filter(None, map(_output, cell.outputs))
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str | None:
    data = output.get("data", {})
    if "text/html" in data:
        table = "\n".join(filter(str.strip, data["text/html"].splitlines()))
        return f'<div class="output" markdown="0">\n{table}\n</div>'
    if "image/png" in data:
        source = f"data:image/png;base64,{data['image/png'].strip()}"
        return f'<div class="output" markdown="0"><img alt="figure" src="{source}"></div>'
    text = output.get("text") or data.get("text/plain")
    return f"```text\n{text.rstrip()}\n```" if text else None


def stage() -> None:
    """Collect all pages in ``build/docs``."""
    shutil.rmtree(STAGED, ignore_errors=True)
    pages = page_map()
    for source, place in pages.items():
        target = STAGED / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".md"):
            file = ROOT / source
            text = notebook_page(file) if source == NOTEBOOK else file.read_text(encoding="utf-8")
            text = with_site_links(_CHINESE_LINE.sub(r"\1", text), source, pages)
            target.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)


def finish(page: str) -> str:
    """A page as the generator wrote it, with formulas in MathML and without Sphinx roles."""
    from latex2mathml.converter import convert

    def formula(match: re.Match[str]) -> str:
        latex = html.unescape(match["latex"]).replace(r"\arg\max", r"\mathrm{arg\,max}")
        mathml = convert(latex, display="block" if match["tag"] == "div" else "inline")
        if "\\" in mathml or "&#x0005C;" in mathml:
            raise ValueError(f"latex2mathml does not know a command in: {latex}")
        return mathml

    return _ROLE.sub("", _FORMULA.sub(formula, page))


def main() -> int:
    """Stage, build, finish; returns the generator's exit code."""
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code == 0:
        for file in SITE.rglob("*.html"):
            file.write_text(finish(file.read_text(encoding="utf-8")), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
