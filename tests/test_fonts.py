from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.fonts import use_fonts, write_font

from clm_data.fonts import FontStack, find_fonts, shipped_font

DROID = Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf")


def drawn_pixels(text: str, fonts: FontStack) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    canvas = FigureCanvasAgg(figure)
    figure.text(0.1, 0.5, text, fontproperties=fonts.properties(20))
    canvas.draw()
    return bytes(canvas.buffer_rgba())


def test_no_font_has_an_unassigned_character() -> None:
    assert find_fonts("\U0010ffff") is None


def test_without_installed_fonts_there_is_no_chinese_but_latin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_fonts(monkeypatch)
    assert find_fonts("山") is None
    assert find_fonts("Hills") == shipped_font()


def test_a_font_that_draws_every_chinese_character_as_one_box_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = write_font(tmp_path / "box.ttf", {"山": "box", "水": "box"})
    drawn = write_font(tmp_path / "drawn.ttf", {"山": "one", "水": "two"})
    use_fonts(monkeypatch, box)
    assert find_fonts("山水") is None
    use_fonts(monkeypatch, box, drawn, Path("/no/such/font"))
    assert find_fonts("山水") == FontStack((str(drawn),))


def test_one_font_with_every_character_is_used_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    han = write_font(tmp_path / "han.ttf", {"山": "a", "水": "b"})
    both = write_font(tmp_path / "both.ttf", {"山": "a", "水": "b", "1": "c"})
    use_fonts(monkeypatch, han, both)
    assert find_fonts("山水1") == FontStack((str(both),))


def test_digits_come_from_another_font_if_the_chinese_font_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    han = write_font(tmp_path / "han.ttf", {"山": "a", "水": "b", "河": "c"})
    use_fonts(monkeypatch, han)
    fonts = find_fonts("山水河12")
    assert fonts == FontStack((str(han), *shipped_font().files))
    assert fonts.covers("12河")
    assert not fonts.covers("湖")


def test_chinese_characters_are_collected_from_several_fonts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = write_font(tmp_path / "common.ttf", {"山": "a", "水": "b"})
    rare = write_font(tmp_path / "rare.ttf", {"湖": "a"})
    use_fonts(monkeypatch, rare, common)
    assert find_fonts("湖山水") == FontStack((str(common), str(rare)))


@pytest.mark.filterwarnings("error")
def test_each_character_is_drawn_with_the_font_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    han = write_font(tmp_path / "han.ttf", {"山": "a"})
    use_fonts(monkeypatch, han)
    fonts = find_fonts("山 1")
    assert fonts is not None
    assert drawn_pixels("1", fonts) == drawn_pixels("1", shipped_font())
    assert drawn_pixels("山", fonts) == drawn_pixels("山", FontStack((str(han),)))
    assert drawn_pixels("山 1", fonts) != drawn_pixels("山 2", fonts)


@pytest.mark.filterwarnings("error")
def test_droid_sans_fallback_is_completed_with_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    if not DROID.is_file():
        pytest.skip("needs the Debian package fonts-droid-fallback")
    use_fonts(monkeypatch, DROID)
    fonts = find_fonts("各领域条目数（共 1010 条）")
    assert fonts == FontStack((str(DROID), *shipped_font().files))
    assert drawn_pixels("共 1 条", fonts) != drawn_pixels("共 2 条", fonts)
