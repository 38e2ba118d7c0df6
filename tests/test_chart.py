from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

import pytest
from helpers.example_records import example_domains, example_records
from helpers.fonts import use_fonts, write_font

from clm_data.chart import draw_domains
from clm_data.dataset_stats import Stats, statistics
from clm_data.fonts import find_fonts

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def stats() -> Stats:
    return statistics(example_records(12), [], [], example_domains())


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the installed fonts."""
    monkeypatch.setenv("MPL_IGNORE_SYSTEM_FONTS", "1")


def size(png: Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data.startswith(PNG)
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def chunks(png: Path) -> list[bytes]:
    data, at, names = png.read_bytes(), 8, []
    while at < len(data):
        names.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4])
    return names


def test_the_same_counts_give_the_same_bytes(stats: Stats, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_domains(stats, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"tEXt" not in chunks(tmp_path / "a.png")


@pytest.mark.usefixtures("no_fonts")
def test_the_users_matplotlibrc_does_not_change_the_chart(
    stats: Stats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_domains(stats, tmp_path / "here.png")
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 30\nsavefig.dpi: 20\n")
    (tmp_path / "stats.json").write_text(stats.model_dump_json(), encoding="utf-8")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    program = (
        "import sys; from pathlib import Path\n"
        "from clm_data.chart import draw_domains; from clm_data.dataset_stats import Stats\n"
        "folder = Path(sys.argv[1])\n"
        "text = (folder / 'stats.json').read_text(encoding='utf-8')\n"
        "draw_domains(Stats.model_validate_json(text), folder / 'there.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_different_counts_give_different_charts(stats: Stats, tmp_path: Path) -> None:
    draw_domains(stats, tmp_path / "a.png")
    other = statistics(example_records(13), [], [], example_domains())
    draw_domains(other, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.usefixtures("no_fonts")
def test_each_domain_has_one_row(stats: Stats, tmp_path: Path) -> None:
    draw_domains(stats, tmp_path / "a.png")
    more = statistics(example_records(12, domains=("apes", "bees")), [], [], example_domains())
    draw_domains(more, tmp_path / "b.png")
    width, height = size(tmp_path / "a.png")
    assert size(tmp_path / "b.png") == (width, height + 2 * 45)


def drawn_texts(stats: Stats, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """All texts that are drawn in the chart."""
    from matplotlib.backends.backend_agg import RendererAgg

    texts: set[str] = set()
    draw_text = RendererAgg.draw_text

    def recording_draw_text(self: RendererAgg, *args: object, **options: object) -> None:
        texts.add(str(args[3]))
        draw_text(self, *args, **options)

    monkeypatch.setattr(RendererAgg, "draw_text", recording_draw_text)
    draw_domains(stats, folder / "chart.png")
    return texts


@pytest.mark.usefixtures("no_fonts")
def test_names_are_english_if_no_font_has_the_chinese_characters(
    stats: Stats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_fonts("山") is None
    texts = drawn_texts(stats, tmp_path, monkeypatch)
    counts = {str(domain.records) for domain in stats.domains}
    assert (
        texts == {"Hills", "Rivers", "Lakes", "Entries by domain (12 in total)", "entries"} | counts
    )


@pytest.mark.usefixtures("no_fonts")
def test_the_id_replaces_an_english_name_that_the_font_cannot_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = {
        "hills": example_domains()["hills"].model_copy(update={"en": "山 hills"}),
        "cash": example_domains()["lakes"].model_copy(update={"id": "cash", "en": "$x$ and $y$"}),
    }
    texts = drawn_texts(statistics(example_records(2), [], [], domains), tmp_path, monkeypatch)
    assert {"hills", "$x$ and $y$"} <= texts


def test_names_are_chinese_if_fonts_have_the_characters(
    stats: Stats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = sorted(set("各领域条目数（共条）山河流湖泊"))
    font = write_font(tmp_path / "han.ttf", {letter: f"u{ord(letter):x}" for letter in letters})
    use_fonts(monkeypatch, font)
    texts = drawn_texts(stats, tmp_path, monkeypatch)
    assert {"山", "河流", "湖泊", "各领域条目数（共 12 条）", "条目数"} <= texts
