"""`clm-data dedup` as a command: its outputs, and what is left after errors and interruptions."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from helpers.hub_server import Repo, running_hub

from clm_data.cli import run
from clm_data.dedup.files.run import deduplicate
from clm_data.dedup.files.texts import MAX_CELL_LENGTH

ROWS: list[dict[str, Any]] = [
    {"zh": {"prompt": "世界上最大的海湾是", "subject": "海湾"}, "score": 1},
    {"zh": {"prompt": "世界上最大的海峡是", "subject": "海峡"}, "score": 2},
    {"zh": {"prompt": "世界上最大的海湾是", "subject": "海湾"}, "score": 3},
    {"zh": {"prompt": "The capital of France is the city of", "subject": "France"}, "score": "1.5"},
    {"zh": {"prompt": "The capital of France is the town of", "subject": "France"}, "score": "7"},
    {"zh": {"prompt": " "}},
    {"zh": None},
]
FIELD = ["--field", "zh.prompt", "--threshold", "0.85"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def kept_rows(out: Path) -> list[int]:
    """Positions in ROWS of the rows of a file."""
    return [ROWS.index(json.loads(line)) for line in out.read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--policy", "keep-first"], [0, 3, 5, 6]),
        (["--policy", "keep-best", "--score", "score"], [2, 4, 5, 6]),
        (["--policy", "by-subject", "--subject", "zh.subject"], [0, 1, 3, 5, 6]),
    ],
)
def test_each_policy_keeps_its_rows_in_source_order(
    file: Path, options: list[str], expected: list[int]
) -> None:
    before = file.read_bytes()
    out = file.with_name("out.jsonl")
    assert run(["dedup", str(file), *FIELD, *options, "--out", str(out)]) == 0
    assert kept_rows(out) == expected
    lines = before.splitlines(keepends=True)
    assert out.read_bytes() == b"".join(lines[row] for row in expected)
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_fields_are_compared_joined_or_separately(tmp_path: Path) -> None:
    path, out = tmp_path / "t.csv", tmp_path / "o.csv"
    path.write_text(
        "zh,en\n甲乙丙,the first\n甲乙丙,something else\n丁戊己,the first\n,\n", "utf-8"
    )
    command = ["dedup", str(path), "--field", "zh", "--field", "en", "--out", str(out), "--force"]
    assert run(command) == 0
    assert out.read_bytes() == path.read_bytes()
    assert run([*command, "--each-field"]) == 0
    assert out.read_text("utf-8") == "zh,en\n甲乙丙,the first\n,\n"


def test_the_boundary_of_joined_fields_is_compared(tmp_path: Path) -> None:
    path, out = tmp_path / "t.csv", tmp_path / "o.csv"
    path.write_text("a,b\n" + "xy,z\nx,yz\n" * 2, "utf-8")
    command = ["dedup", str(path), "--field", "a", "--field", "b", "--out", str(out)]
    assert run([*command, "--threshold", "0.9"]) == 0
    assert out.read_text("utf-8") == "a,b\nxy,z\nx,yz\n"
    path.write_text("a,b\nx\x1f,y\n", "utf-8")
    assert run([*command, "--force"]) == 2


def test_texts_are_compared_unchanged_unless_normalized(tmp_path: Path) -> None:
    path, out = tmp_path / "t.csv", tmp_path / "o.csv"
    path.write_text("a\nＡＢＣ  ｄ\nABC d\n", "utf-8")
    command = ["dedup", str(path), "--field", "a", "--out", str(out), "--force"]
    assert run(command) == 0
    assert out.read_bytes() == path.read_bytes()
    assert run([*command, "--normalize"]) == 0
    assert out.read_text("utf-8") == "a\nＡＢＣ  ｄ\n"


def test_reports_go_to_a_file_or_to_stdout(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = file.with_name("out.jsonl"), file.with_name("r.html")
    command = ["dedup", str(file), *FIELD, "--out", str(out), "--force"]
    assert run([*command, "--report", str(page)]) == 0
    assert "7 rows: 4 kept, 3 removed; 2 without text kept" in capsys.readouterr().out
    assert "<del>" in page.read_text("utf-8")
    assert run([*command, "--report", "-"]) == 0
    assert "kept row" in capsys.readouterr().out
    assert run([*command, "--report", "-", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["clusters"]) == 2
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 3


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"q": "x"}\n', [], "no row has the column 'p'"),
        ('{"p": "x"}\n{"p": 7}\n', [], "rows.jsonl:2: 'p' is a number, not text"),
        ('{"p": "x"}\n{"p": ["x"]}\n', [], "rows.jsonl:2: 'p' is a list"),
        (
            '{"p": {"zh": "x"}}\n',
            [],
            "rows.jsonl:1: 'p' is an object, not text; select a field of it, such as p.zh",
        ),
        ('{"p": "x", "s": "best"}\n', ["--policy", "keep-best", "--score", "s"], "not a number"),
        ('{"p": "x", "s": true}\n', ["--policy", "keep-best", "--score", "s"], "true or false"),
        ('{"p": "x"}\n', ["--policy", "keep-best", "--score", "s"], "no row has the column 's'"),
        ('{"p": "x", "s": 1}\n', ["--policy", "by-subject", "--subject", "s"], "is a number"),
        ("", [], "has no rows"),
        (f'{{"p": "{"x" * (MAX_CELL_LENGTH + 1)}"}}\n', [], "remove the row"),
        ('{"p": "x"}\n', ["--policy", "keep-last"], "did you mean keep-"),
        ('{"p": "x"}\n', ["--policy", "keep-best"], "--score"),
        ('{"p": "x"}\n', ["--score", "s"], "keep-best"),
        ('{"p": "x"}\n', ["--policy", "by-subject"], "--subject"),
        ('{"p": "x"}\n', ["--subject", "s"], "by-subject"),
        ('{"p": "x"}\n', ["--threshold", "1"], "0.9999"),
        ('{"p": "x"}\n', ["--threshold", "0.2"], "--threshold"),
        ('{"p": "x"}\n', ["--field", "p"], "twice"),
        ('{"p": "x"}\n', ["--semantic", "m"], "--subject"),
        ('{"p": "x"}\n', ["--provider", "ollama"], "--semantic"),
        ('{"p": "x"}\n', ["--report", "OUT"], "same file"),
        ('{"p": "x"}\n', ["--report", "IN"], "is the input"),
        ('{"p": "x"}\n', ["--report", "nowhere/r.html"], "No such file or directory"),
    ],
)
def test_user_errors_are_one_line_and_leave_no_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    content: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(content, "utf-8")
    arguments = [{"OUT": "out.jsonl", "IN": "rows.jsonl"}.get(option, option) for option in options]
    assert run(["dedup", "rows.jsonl", "--field", "p", "--out", "out.jsonl", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert message in err
    assert path.read_text("utf-8") == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("rows.jsonl", "is the input"),
        ("link.jsonl", "is the input"),
        ("existing.jsonl", "--force"),
        ("folder", "not a regular file"),
        ("folder/none/out.jsonl", "No such file"),
        ("out.csv", "use a *.jsonl file"),
        ("x" * 300, "too long"),
        ("/dev/full", "not a regular file"),
        ("/proc/out.jsonl", "cannot be written"),
    ],
)
def test_an_unusable_output_path_is_a_one_line_error(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    out: str,
    message: str,
) -> None:
    monkeypatch.chdir(file.parent)
    Path("link.jsonl").hardlink_to(file)
    Path("existing.jsonl").write_text("mine")
    Path("folder").mkdir()
    before = {path: path.stat().st_mtime_ns for path in file.parent.iterdir()}
    force = [] if out == "existing.jsonl" else ["--force"]
    assert run(["dedup", file.name, *FIELD, "--out", out, *force]) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in file.parent.iterdir()} == before


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "clm_data", "dedup", *map(str, arguments)]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "json", "parquet"])
def test_a_full_disk_is_a_one_line_error_and_keeps_the_old_file(
    tmp_path: Path, ending: str
) -> None:
    path, out = tmp_path / f"rows.{ending}", tmp_path / f"out.{ending}"
    texts = [os.urandom(300).hex() for _ in range(300)]
    if ending == "jsonl":
        write_rows(path, [{"p": text} for text in texts])
    elif ending == "json":
        path.write_text(json.dumps([{"p": text} for text in texts]))
    elif ending == "csv":
        path.write_text("p,q\n" + "".join(f"{text},1\n" for text in texts))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"p": texts}), path)
    out.write_text("old")

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run(
        command(path, "--field", "p", "--out", out, "--force"),
        capture_output=True,
        text=True,
        preexec_fn=limit_file_size,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, out.name])


def test_no_file_is_written_if_the_report_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"p": f"{'x' * 300}{number}"} for number in range(300)])
    done = subprocess.run(
        command(path, "--field", "p", "--out", path.with_name("o.jsonl"), "--report", "/dev/full"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    room = (resource.RLIMIT_FSIZE, (50_000, 50_000))
    arguments = command(path, "--field", "p", "--out", path.with_name("o.jsonl"))
    done = subprocess.run(
        [*arguments, "--report", str(path.with_name("r.json"))],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(*room),
        check=False,
    )
    assert done.returncode == 2
    assert "r.json: cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("options", [[], ["--report", "-"], ["--report", "-", "--json"]])
def test_a_full_stdout_is_a_one_line_error(file: Path, options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(file, *FIELD, "--out", file.with_name("out.jsonl"), *options),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "out.jsonl is complete" in done.stderr


@pytest.mark.parametrize("step", ["reading", "comparing", "writing"])
def test_an_interruption_at_any_step_leaves_no_file(tmp_path: Path, step: str) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    write_rows(path, [{"p": f"{number:0100d}"} for number in range(13_000)])

    def interrupt(current: str, done: int, total: int) -> None:
        if current == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deduplicate(
            path,
            "p",
            threshold=0.999,
            out=out,
            report=tmp_path / "report.json",
            progress=interrupt,
        )
    assert list(tmp_path.iterdir()) == [path]


def test_control_c_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    write_rows(path, [{"p": f"{number:0200d}"} for number in range(100_000)])
    process = subprocess.Popen(
        command(path, "--field", "p", "--out", out), stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob(".out.jsonl.*.new")):
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.2)  # into the reading of the rows, which takes seconds
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert err == "interrupted; nothing was written; run the command again\n"
    assert list(tmp_path.iterdir()) == [path]


def test_progress_is_shown_on_a_terminal_only(file: Path) -> None:
    out = file.with_name("out.jsonl")
    ours, theirs = pty.openpty()
    subprocess.run(
        command(file, *FIELD, "--out", out),
        stderr=theirs,
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "reading" in shown
    assert "writing" in shown
    piped = subprocess.run(
        command(file, *FIELD, "--out", out, "--force"), capture_output=True, check=True
    )
    assert piped.stderr == b""


class _Embeddings(BaseHTTPRequestHandler):
    """Embeds texts by counts of two arguments; answers 401 unless the key is ``secret``."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != "Bearer secret":
            self._answer(401, {"error": {"message": "no"}})
            return
        data = [
            {"index": index, "embedding": [text.count("首都"), text.count("面积"), 0.1]}
            for index, text in enumerate(body["input"])
        ]
        self._answer(200, {"data": data[::-1] if body["model"] == "m" else []})

    def _answer(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@contextmanager
def embeddings_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Embeddings)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_semantic_duplicates_are_reported_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "t.jsonl", tmp_path / "o.jsonl"
    rows = [
        {"p": "法国的首都是", "s": "法国"},
        {"p": "日本的首都是", "s": "日本"},
        {"p": "首都在法国的哪里", "s": "法国"},
        {"p": "按面积法国排名第", "s": "法国"},
        {"p": "首都在哪"},
        {"p": "国家的首都"},
    ]
    write_rows(path, rows)
    arguments = ["dedup", str(path), "--field", "p", "--subject", "s", "--out", str(out), "--force"]
    with embeddings_server() as url:
        arguments += ["--base-url", url, "--report", "-", "--json"]
        monkeypatch.setenv("CLM_DATA_API_KEY", "secret")
        assert run([*arguments, "--semantic", "m"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert [[row["row"] for row in pair["rows"]] for pair in found["semantic"]] == [[1, 3]]
        assert found["removed"] == 0
        assert out.read_bytes() == path.read_bytes()
        out.unlink()
        assert run([*arguments, "--semantic", "another"]) == 2
        assert "did not return" in capfd.readouterr().err
        monkeypatch.setenv("CLM_DATA_API_KEY", "wrong")
        assert run([*arguments, "--semantic", "m"]) == 2
        err = capfd.readouterr().err
        assert "CLM_DATA_API_KEY" in err
        assert "wrong" not in err
    assert list(tmp_path.iterdir()) == [path]


def test_an_unreachable_endpoint_is_a_one_line_error(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = file.with_name("out.jsonl")
    arguments = ["dedup", str(file), "--field", "zh.prompt", "--subject", "zh.subject"]
    arguments += ["--out", str(out), "--semantic", "m"]
    assert run([*arguments, "--threshold", "0.99", "--base-url", "http://127.0.0.1:1/v1"]) == 2
    err = capfd.readouterr().err
    assert "no embeddings" in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_an_unavailable_dataset_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    out = tmp_path / "o.parquet"
    assert run(["dedup", "hub:nobody/nothing/x", "--field", "p", "--out", str(out)]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "hub:nobody/nothing/x" in err


def test_rows_of_a_hub_dataset_are_written_as_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = [{"zh": {"prompt": text}, "n": n} for n, text in enumerate(["甲乙", "甲乙", "丙"])]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    card = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.jsonl\n"
        "  - split: test\n    path: more.jsonl\n"
        for name in ("one", "two")
    )
    repo = Repo(private=False)
    readme = f"---\n{card}---\n".encode()
    repo.add_commit(
        {"README.md": readme, "one.jsonl": lines, "two.jsonl": lines, "more.jsonl": lines}
    )
    out = tmp_path / "out.parquet"
    arguments = ["hub:team/rows/two", "--field", "zh.prompt", "--out", str(out)]
    with running_hub() as hub:
        hub.repos["team/rows"] = repo
        environ = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        several, done = (
            subprocess.run(
                command(*arguments, *more), capture_output=True, text=True, env=environ, check=False
            )
            for more in ([], ["--split", "test"])
        )
    assert several.returncode == 2
    assert "the splits train, test; choose one with --split" in several.stderr
    assert done.returncode == 0, done.stderr
    assert [row["n"] for row in pq.read_table(out).to_pylist()] == [0, 2]
