"""The report as JSON, table and web page."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clm_data.dedup.files.options import DedupOptions
from clm_data.dedup.files.page import MAX_SHOWN, differences
from clm_data.dedup.files.policies import TextColumn, select_rows
from clm_data.dedup.files.report import DedupReport
from clm_data.dedup.files.row_table import RowTable
from clm_data.dedup.files.semantic import SemanticDuplicate
from clm_data.dedup.files.texts import SEPARATOR


def report_of(
    texts: list[str | None],
    *,
    threshold: float = 0.8,
    subjects: list[int] | None = None,
    semantic: tuple[SemanticDuplicate, ...] = (),
    fields: tuple[str, ...] = ("prompt",),
) -> DedupReport:
    column = TextColumn()
    for text in texts:
        column.add(text)
    options = DedupOptions(
        source="made.jsonl",
        fields=fields,
        threshold=threshold,
        policy="keep-first" if subjects is None else "by-subject",
        subject=None if subjects is None else "subject",
        semantic="some-model" if semantic else None,
        semantic_threshold=0.8 if semantic else None,
    )
    selection = select_rows([column], threshold, subjects=subjects)
    return DedupReport(options, RowTable([]), (column,), selection, semantic)


def text_of(report: DedupReport, format: str) -> str:
    stream = io.StringIO()
    report.write(stream, format)
    return stream.getvalue()


class Page(HTMLParser):
    """The unclosed tags, the text in <del> and <ins>, and the URLs of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.marked: list[tuple[str, str]] = []
        self.urls: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("del", "ins"):
            self.marked.append((self.open[-1], data))


GULF: list[str | None] = [
    "世界上最大的海湾是",
    "世界上最大的海峡是",
    "另一个",
    "世界上最大的海湾是",
]


def test_the_json_report_has_every_cluster_and_flagged_row() -> None:
    found = json.loads(text_of(report_of(GULF, subjects=[0, 1, 2, 0]), "json"))
    assert found["rows"] == found["kept"] + found["removed"] == 4
    assert found["clusters"] == [
        {
            "representative": {"row": 1, "texts": [GULF[0]]},
            "removed": [{"row": 4, "texts": [GULF[3]], "ratio": 1.0, "field": "prompt"}],
        }
    ]
    (flagged,) = found["review"]
    assert (flagged["row"], flagged["twins"], flagged["closest"][0]["row"]) == (2, 1, 1)
    assert flagged["closest"][0]["ratio"] == 0.888889
    assert "semantic" not in found


def test_texts_of_joined_fields_are_separate_in_the_report() -> None:
    text = SEPARATOR.join(["甲", "A"])
    found = json.loads(text_of(report_of([text, text], fields=("zh", "en")), "json"))
    assert found["clusters"][0]["representative"]["texts"] == ["甲", "A"]


def test_lone_surrogates_can_be_reported(tmp_path: Path) -> None:
    report = report_of(["abcdefgh\ud800i", "abcdefgh\ud800j"])
    for name in ("json", "html", "table"):
        report.write(tmp_path / name, name)
    found = json.loads((tmp_path / "json").read_text(encoding="utf-8"))
    assert found["clusters"][0]["representative"]["texts"] == ["abcdefgh\ud800i"]
    assert "⟨U+D800⟩" in (tmp_path / "html").read_text(encoding="utf-8")


def test_the_page_marks_differences_and_loads_nothing() -> None:
    text = text_of(report_of([*GULF[:2], "<b>&"]), "html")
    page = Page(text)
    assert page.open == []
    assert page.urls == []
    assert page.marked[-2:] == [("del", "峡"), ("ins", "湾")]
    assert "[only row 2: " in text  # for screen readers
    assert 'lang="zh"' in text
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_markup_in_texts_is_escaped() -> None:
    text = text_of(report_of(["<script>alert(1)</script>", "<script>alert(2)</script>"]), "html")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "[bold]x" in text_of(report_of(["[bold]xyzxyzxyz", "[bold]xyzxyzxyw"]), "table")


def test_table_and_page_show_the_first_items_and_the_total() -> None:
    count = MAX_SHOWN + 5
    texts: list[str | None] = [f"{number:08x}" for number in range(count)] * 2
    report = report_of(texts, threshold=0.99)
    assert f"showing the first {MAX_SHOWN} of {count}" in text_of(report, "table")
    assert f"The first {MAX_SHOWN} clusters are shown" in text_of(report, "html")
    assert len(json.loads(text_of(report, "json"))["clusters"]) == count


def test_semantic_duplicates_are_in_every_format() -> None:
    report = report_of(["甲的首都是", "哪座城是首都"], semantic=(SemanticDuplicate(0, 1, 0.91),))
    assert report.summary()["removed"] == 0
    found = json.loads(text_of(report, "json"))
    assert [row["row"] for row in found["semantic"][0]["rows"]] == [1, 2]
    assert "0.9100" in text_of(report, "html")
    assert "semantic duplicate" in text_of(report, "table")


@given(st.text("ab中 ", max_size=30), st.text("ab中 ", max_size=30))
def test_segments_reconstruct_both_texts(kept: str, removed: str) -> None:
    found = differences(kept, removed)
    assert "".join(text for kind, text in found if kind != "removed") == kept
    assert "".join(text for kind, text in found if kind != "kept") == removed


def test_long_texts_are_shortened_around_their_difference() -> None:
    huge = "长" * 20_000
    text = text_of(report_of([f"{huge}甲{huge}", f"{huge}乙{huge}"]), "html")
    assert len(text) < 20_000
    assert Page(text).marked[-2:] == [("del", "乙"), ("ins", "甲")]
