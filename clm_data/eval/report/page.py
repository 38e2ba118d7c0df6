"""The page itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clm_data.eval.report.parts import NONE, BilingualText, Section
from clm_data.records import Language
from clm_data.text import visible

_WORDS = {
    "zh": BilingualText("中文", "Chinese"),
    "en": BilingualText("英文", "English"),
    "skip": BilingualText("跳到正文", "Skip to the content"),
    "first_rows": BilingualText(
        "此处只列前几行，文件中有全部。", "Only the first rows; the file has all of them."
    ),
    "edited": BilingualText("在此语言中编辑", "edited in this language"),
    "not_edited": BilingualText("未在此语言中编辑", "not edited in this language"),
    "prompt": BilingualText("提示", "prompt"),
    "truth": BilingualText("真实答案", "true answer"),
    "new": BilingualText("新答案", "new answer"),
    "before": BilingualText("编辑前", "said before"),
    "after": BilingualText("编辑后", "said after"),
    "verdict": BilingualText("判定", "verdict"),
    "reliability": BilingualText("可靠性", "reliability"),
    "paper": BilingualText("论文", "the paper"),
}
_VERDICTS = {
    "new": BilingualText("新答案", "the new answer"),
    "old": BilingualText("仍是原答案", "still the old answer"),
    "other": BilingualText("其他", "something else"),
}


def render(
    title: str, sections: Sequence[Section], *, lang: Language, folder: str, figures: str
) -> str:
    """One self-contained page.

    Args:
        title: Its heading.
        sections: Its chapters.
        lang: What it shows at first; the reader can switch.
        folder: Where the tables are, beside the page, with a slash at its end.
        figures: Where the figures are, likewise.
    """
    from jinja2 import Environment, StrictUndefined

    here = Path(__file__)
    source = here.with_name("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        title=title,
        sections=sections,
        lang=lang,
        folder=folder,
        figures=figures,
        style=here.with_name("report.css").read_text(encoding="utf-8"),
        words=_WORDS,
        verdicts=_VERDICTS,
        visible=visible,
        none_mark=NONE,
    )
