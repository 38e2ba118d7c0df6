from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.example_candidates import VALID
from helpers.example_records import example_fact

from clm_data.cli import run
from clm_data.config import LocalitySettings, open_workspace, save_locality
from clm_data.errors import ConfigError
from clm_data.layouts import EN_FILE, MIX_FILE, ZH_FILE, with_english_names
from clm_data.store import Store

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rows: dict[str, list[Any]] = {
        ZH_FILE: [{"case_id": 1, **VALID["zh"]}],
        EN_FILE: [with_english_names({"case_id": 1, **VALID["en"]})],
        MIX_FILE: [{"case_id": 1, **VALID["zh"]}, {"case_id": 1, **VALID["en"]}],
    }
    for name, part in rows.items():
        (tmp_path / name).write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    return {name: tmp_path / name for name in rows}


def clm(workspace: Path, *arguments: str | Path) -> int:
    return run(["--workspace", str(workspace), *map(str, arguments)])


def test_import_makes_the_workspace_and_adds_each_file_once(
    workspace: Path, files: dict[str, Path], capsys: Printed
) -> None:
    assert clm(workspace, "import", *files.values(), "--license", "MIT", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [(file["rows"], file["state"]) for file in report["files"]] == [
        (1, "new"),
        (1, "new"),
        (2, "new"),
    ]
    assert report["candidates"] == 1
    assert clm(workspace, "import", files[MIX_FILE], files[ZH_FILE]) == 0
    out = capsys.readouterr().out
    assert out.count("already stored") == 2
    with Store(open_workspace(workspace).store_url) as store:
        assert [source.licence for source in store.sources()] == ["MIT"] * 3


def test_a_bad_file_is_reported_and_the_others_are_taken(
    workspace: Path, files: dict[str, Path], tmp_path: Path, capsys: Printed
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('[{"case_id": 1},\n{]', encoding="utf-8")
    assert clm(workspace, "import", files[ZH_FILE], bad, files[EN_FILE]) == 2
    shown = capsys.readouterr()
    assert f"error: {bad}:2: row 2: not valid JSON" in shown.err
    assert "1 candidate in imported files" in shown.out
    with Store(open_workspace(workspace).store_url) as store:
        assert [source.name for source in store.sources()] == [ZH_FILE, EN_FILE]


def test_unknown_format_is_one_line(
    workspace: Path, files: dict[str, Path], capsys: Printed
) -> None:
    assert clm(workspace, "import", files[ZH_FILE], "--format", "clm-bench-zg") == 2
    assert "did you mean clm-bench-zh" in capsys.readouterr().err


def test_unchecked_export_gives_back_what_was_imported(
    workspace: Path, files: dict[str, Path], tmp_path: Path, capsys: Printed
) -> None:
    clm(workspace, "import", files[MIX_FILE])
    out = tmp_path / "out"
    assert clm(workspace, "export", "--format", "clm-bench", "--unchecked", "--out", out) == 0
    for name, path in files.items():
        assert json.loads((out / name).read_text("utf-8")) == json.loads(path.read_text("utf-8"))
    assert clm(workspace, "export", "--unchecked", "--out", out) == 2
    assert "is not empty" in capsys.readouterr().err
    assert clm(workspace, "export", "--unchecked", "--out", out, "--force") == 0


STYLES: dict[str, tuple[dict[str, Any], Callable[[str], bytes]]] = {
    "crlf": ({"indent": 2}, lambda text: text.replace("\n", "\r\n").encode()),
    "four spaces": ({"indent": 4}, lambda text: text.encode()),
    "tabs and a last line end": ({"indent": "\t"}, lambda text: (text + "\n").encode()),
    "one line": ({"separators": (",", ":")}, lambda text: text.encode()),
    "escapes": ({"indent": 2, "ensure_ascii": True}, lambda text: text.encode()),
    "byte-order mark": ({"indent": 2}, lambda text: text.encode("utf-8-sig")),
    "escaped slashes": ({"indent": 2}, lambda text: text.replace("的", "\\u7684").encode()),
}


@pytest.mark.parametrize("style", STYLES)
def test_unchecked_export_gives_back_the_bytes_of_each_file(
    workspace: Path, files: dict[str, Path], tmp_path: Path, style: str
) -> None:
    options, encoded = STYLES[style]
    for path in files.values():
        rows = json.loads(path.read_text("utf-8"))
        path.write_bytes(encoded(json.dumps(rows, **{"ensure_ascii": False, **options})))
    before = {name: path.read_bytes() for name, path in files.items()}
    clm(workspace, "import", *files.values())
    out = tmp_path / "out"
    assert clm(workspace, "export", "--unchecked", "--out", out) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_unchecked_export_writes_rows_of_several_files_as_json(
    workspace: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    second = tmp_path / f"second_{ZH_FILE}"
    rows = [dict(row, case_id=77) for row in json.loads(files[ZH_FILE].read_text("utf-8"))]
    second.write_text(json.dumps(rows), encoding="utf-8")
    clm(workspace, "import", files[ZH_FILE], second)
    out = tmp_path / "out"
    assert clm(workspace, "export", "--unchecked", "--out", out) == 0
    first = json.loads(files[ZH_FILE].read_text("utf-8"))
    assert json.loads((out / ZH_FILE).read_text("utf-8")) == first + rows


def test_unchecked_export_of_json_lines_is_a_json_list(
    workspace: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    rows = json.loads(files[ZH_FILE].read_text("utf-8"))
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    clm(workspace, "import", lines)
    assert clm(workspace, "export", "--unchecked", "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / ZH_FILE).read_text("utf-8")) == rows


def test_bytes_are_added_to_a_file_that_an_older_version_imported(
    workspace: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    files[ZH_FILE].write_bytes(files[ZH_FILE].read_bytes() + b"\r\n")
    clm(workspace, "import", files[ZH_FILE])
    with sqlite3.connect(workspace / "clm.db") as db:
        db.execute("DROP TABLE source_bytes")
    db.close()
    clm(workspace, "import", files[ZH_FILE])
    assert clm(workspace, "export", "--unchecked", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / ZH_FILE).read_bytes() == files[ZH_FILE].read_bytes()


def test_unchecked_export_says_what_is_missing(
    workspace: Path, files: dict[str, Path], tmp_path: Path, capsys: Printed
) -> None:
    clm(workspace, "import", files[ZH_FILE])
    assert clm(workspace, "export", "--unchecked", "--out", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [ZH_FILE]
    assert f"{EN_FILE} is not written" in capsys.readouterr().err


def test_checked_export_writes_records(
    workspace: Path, files: dict[str, Path], tmp_path: Path, capsys: Printed
) -> None:
    clm(workspace, "import", files[MIX_FILE])
    capsys.readouterr()
    out = tmp_path / "out"
    assert clm(workspace, "export", "--format", "jsonl", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == {"records.jsonl": 1}
    assert clm(workspace, "export", "--format", "clm-bench", "--out", tmp_path / "again") == 0
    row = json.loads((tmp_path / "again" / EN_FILE).read_text("utf-8"))[0]
    assert row["english_subject"] == VALID["en"]["subject"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "jsonnl"], "did you mean jsonl"),
        (["--format", "csv", "--unchecked"], "--unchecked needs --format clm-bench"),
        (["--unchecked"], "no CLM-Bench file was imported"),
        ([], "no records to export"),
    ],
)
def test_export_that_cannot_be_is_one_line(
    workspace: Path, tmp_path: Path, capsys: Printed, arguments: list[str], message: str
) -> None:
    run(["init", str(workspace)])
    assert clm(workspace, "export", *arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def probes(folder: Path, count: int) -> Path:
    rows = [
        {
            "zh": {"loc": f"第{number}页讲什么？", "loc_ans": f"故事{number}"},
            "en": {"loc": f"What is page {number} about?", "loc_ans": f"Story {number}"},
        }
        for number in range(count)
    ]
    path = folder / "probes.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def entries(folder: Path, count: int) -> Path:
    """Entries whose texts differ enough to be no near-duplicates."""
    names = ["乌江", "汉水", "沅水"]
    rows = []
    for number in range(count):
        zh = example_fact("zh", number).model_dump()
        zh |= {"subject": names[number], "prompt": f"{names[number]}的源头是"}
        zh |= {"rephrase_prompt": f"{names[number]}这条河发源于"}
        rows.append({"zh": zh, "en": example_fact("en", number).model_dump()})
    path = folder / "entries.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_locality_attach_keeps_the_choice_and_the_rest_of_the_settings(
    workspace: Path, tmp_path: Path, capsys: Printed
) -> None:
    clm(workspace, "import", entries(tmp_path, 3))
    config = workspace / "clm.yaml"
    config.write_text(
        "provider: offline  # mine\nlocality: {source: bank}\n# about dedup\ndedup:\n"
        "  threshold: 0.95\n",
        encoding="utf-8",
    )
    inside = probes(workspace, 5)
    capsys.readouterr()
    command = ["locality", "attach", "--source", inside, "--seed", "7", "--json"]
    assert clm(workspace, *command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {
        "source": "probes.json",
        "seed": 7,
        "repeat": False,
        "usable": 5,
        "entries": 3,
        "rejected": {},
    }
    text = config.read_text(encoding="utf-8")
    assert "offline  # mine" in text
    assert "# about dedup\ndedup:\n  threshold: 0.95\n" in text
    settings = open_workspace(workspace).settings
    assert settings.locality.model_dump() == {"source": "probes.json", "seed": 7, "repeat": False}
    assert settings.dedup.threshold == 0.95


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "{}"),
        ("provider: offline", "provider: offline\n{}"),
        ("locality:\n  source: x\n\n  seed: 1\n# c\nmodel: m\n", "{}# c\nmodel: m\n"),
        ("locality: {source: x}\nmodel: m", "{}model: m"),
    ],
)
def test_saving_the_section_keeps_every_other_line(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "clm.yaml"
    file.write_text(before, encoding="utf-8")
    save_locality(tmp_path, LocalitySettings(source="页.json", seed=3))
    section = "locality:\n  source: 页.json\n  seed: 3\n  repeat: false\n"
    assert file.read_text(encoding="utf-8") == after.format(section)
    assert list(tmp_path.iterdir()) == [file]


def test_a_section_that_cannot_be_told_apart_is_left_to_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "clm.yaml"
    file.write_text("{provider: offline, locality: {seed: 1}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="set it by hand: locality:;"):
        save_locality(tmp_path, LocalitySettings())
    assert file.read_text(encoding="utf-8").startswith("{provider")
    assert list(tmp_path.iterdir()) == [file]


def test_locality_attach_changes_nothing_where_probes_do_not_suffice(
    workspace: Path, tmp_path: Path, capsys: Printed
) -> None:
    clm(workspace, "import", entries(tmp_path, 3))
    before = (workspace / "clm.yaml").read_bytes()
    assert clm(workspace, "locality", "attach", "--source", probes(tmp_path, 2)) == 2
    assert "1 of 3 entries get no locality probe" in capsys.readouterr().err
    assert (workspace / "clm.yaml").read_bytes() == before
    assert clm(workspace, "locality", "attach", "--source", probes(tmp_path, 2), "--repeat") == 0
    assert open_workspace(workspace).settings.locality.repeat is True
    assert open_workspace(workspace).settings.locality.source == str(tmp_path / "probes.json")


def test_locality_attach_names_a_source_that_is_not_there(workspace: Path, capsys: Printed) -> None:
    run(["init", str(workspace)])
    capsys.readouterr()
    assert clm(workspace, "locality", "attach", "--source", "team/probes") == 2
    error = capsys.readouterr().err
    assert error == "error: team/probes: no such file; a dataset on the Hub is hub:team/probes\n"


def test_import_and_audit_say_what_is_not_read_and_what_cannot_be_used(
    workspace: Path, tmp_path: Path, capsys: Printed
) -> None:
    rows = [{"case_id": 1, **VALID["zh"], "note": "n"}, {"case_id": [2], **VALID["zh"]}]
    mixed = tmp_path / "mixed.json"
    mixed.write_text(json.dumps(rows), encoding="utf-8")
    assert clm(workspace, "import", mixed) == 0
    shown = capsys.readouterr().err
    assert "mixed.json: 1 candidate: 1 row cannot be used: row 2: case_id: expected" in shown
    assert "mixed.json: 1 field is not read: note (1 row)" in shown
    assert clm(workspace, "audit", mixed) == 0
    assert "1 field is not read: note (1 row)" in capsys.readouterr().err
    assert clm(workspace, "audit", mixed, "--json") == 0
    assert json.loads(capsys.readouterr().out)["unread"] == {"note": 1}
    useless = tmp_path / "useless.json"
    useless.write_text(json.dumps(rows[1:]), encoding="utf-8")
    for flags in ([], ["--json"]):
        assert clm(workspace, "import", useless, *flags) == 2
    assert "error: useless.json: 0 candidates: 1 row cannot be used: row 1" in (
        capsys.readouterr().err
    )


def test_a_source_of_one_probe_has_too_few(
    workspace: Path, files: dict[str, Path], tmp_path: Path, capsys: Printed
) -> None:
    assert clm(workspace, "import", *files.values()) == 0
    side = {"src": "p", "subject": "s", "alt": "a", "loc_ans": "88"}
    row = {
        "en": {**side, "loc": "how many keys does an old piano have"},
        "zh-cn": {**side, "loc": "旧钢琴有几个琴键？"},
    }
    source = tmp_path / "mzsre.json"
    source.write_text(json.dumps([row]), encoding="utf-8")
    clm(workspace, "locality", "attach", "--source", source)
    shown = capsys.readouterr()
    assert "English only" not in shown.err
    assert "1 probes are usable" in shown.err or "1 usable probe" in shown.out
    assert clm(workspace, "locality", "attach", "--source", "/dev/zero") == 2
    assert "is not a regular file" in capsys.readouterr().err
