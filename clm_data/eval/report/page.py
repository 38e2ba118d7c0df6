"""Render the report as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clm_data.eval.bilingual import LANGUAGE_NAMES, BilingualText
from clm_data.eval.report.parts import NO_VALUE, Section
from clm_data.records import Language
from clm_data.text import visible

_LABELS = {
    "zh": LANGUAGE_NAMES["zh"],
    "en": LANGUAGE_NAMES["en"],
    "skip": BilingualText("跳到正文", "Skip to the content"),
    "first_rows": BilingualText(
        "此处只显示前几行，文件中有全部行。", "Only the first rows are shown; the file has all."
    ),
    "edited": BilingualText("以该语言编辑", "edited in this language"),
    "not_edited": BilingualText("未以该语言编辑", "not edited in this language"),
    "prompt": BilingualText("题干", "prompt"),
    "true_answer": BilingualText("真实答案", "true answer"),
    "new_answer": BilingualText("反事实答案", "new answer"),
    "before": BilingualText("编辑前的回答", "answer before"),
    "after": BilingualText("编辑后的回答", "answer after"),
    "verdict": BilingualText("判定", "verdict"),
    "reliability": BilingualText("可靠性", "reliability"),
}
_VERDICTS = {
    "new": BilingualText("反事实答案", "new answer"),
    "old": BilingualText("仍为真实答案", "still the true answer"),
    "other": BilingualText("两者皆非", "neither"),
}


def render(
    title: str, sections: Sequence[Section], *, lang: Language, tables: str, figures: str
) -> str:
    """The page as HTML.

    Args:
        title: Heading of the page.
        sections: Chapters, in order.
        lang: Language that the page shows first; readers can switch.
        tables: Folder of the tables relative to the page, with a slash at its end.
        figures: Folder of the figures, likewise.
    """
    from jinja2 import Environment, StrictUndefined

    folder = Path(__file__).parent
    template = (folder / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        title=title,
        sections=sections,
        lang=lang,
        tables=tables,
        figures=figures,
        style=(folder / "report.css").read_text(encoding="utf-8"),
        labels=_LABELS,
        verdicts=_VERDICTS,
        visible=visible,
        no_value=NO_VALUE,
    )
