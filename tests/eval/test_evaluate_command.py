"""``clm-data eval-baselines`` and ``report`` where something is wrong, and where nothing is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.example_records import example_records
from helpers.saved_folders import dataset_folder, model_folder
from helpers.tiny_dataset import RECORDS

from clm_data.cli import run

Command = Callable[..., tuple[int, str, str]]
GOOD = ["--params", "tiny", "--methods", "ft", "--languages", "zh", "--corpus", "dataset"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, ``set``, and a model, ``small``."""
    folder = tmp_path_factory.mktemp("evaluate")
    dataset_folder(folder / "set", RECORDS[:4])
    model_folder(folder / "small")
    return folder


@pytest.fixture
def command(
    places: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """Runs eval-baselines beside the dataset and the model, with results in ``tmp_path/out``."""
    monkeypatch.chdir(places)
    fixed = ["--out", str(tmp_path / "out"), "--cache", str(places / "cache")]

    def evaluate(*argv: str) -> tuple[int, str, str]:
        given = [] if "--dataset" in argv else ["--dataset", "set"]
        code = run(["eval-baselines", *given, *fixed, *argv])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return evaluate


def cells(folder: Path) -> dict[str, str | None]:
    """By label-like words: the error of each cell of ``results.json``, None where it is done."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    out = {}
    for cell in found:
        setting = cell["setting"]
        words = [setting["model"], setting["method"], setting["protocol"]]
        words += [str(setting["layers"])] if setting["layers"] is not None else []
        out[" ".join(words)] = cell["error"]
        assert (cell["status"] == "failed") == (cell["error"] is not None)
    return out


def recipe(folder: Path, **fields: Any) -> str:
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(fields), encoding="utf-8")
    return str(file)


def test_a_run_prints_its_table_and_a_report_prints_it_again(
    command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command("--model", "small", *GOOD, "--strict")
    assert code == 0, err
    assert "| small | FT-L | zh | 4 |" in out
    assert "; done" in err
    assert run(["report", str(tmp_path / "out")]) == 0
    assert capfd.readouterr().out.splitlines()[2:] == out.splitlines()[2:]
    assert run(["report", str(tmp_path / "out"), "--compare-paper"]) == 0
    assert "no row of these results has a counterpart" in capfd.readouterr().err
    code, out, _ = command("--model", "small", *GOOD, "--json")
    assert code == 0
    assert json.loads(out)["cells"][0]["status"] == "done"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "name a model with --model"),
        (["--recipe", "tabel1"], "did you mean table1"),
        (["--recipe", "nowhere.yaml"], "no such file"),
        (["--model", "small", "--dataset", "./nowhere"], "no such file or folder"),
        (["--model", "small", "--dataset", "small"], "no dataset in there"),
        (["--model", "small", "--dataset", "small/config.json"], "of no known format"),
        (["--model", "small", "--dataset", "empty.json"], "holds no rows"),
        (["--model", "small", "--dataset", "broken"], "not the parallel rows"),
        (["--model", "small", "--dataset", "set/chinese_fields_with_loc.json"], "no record with"),
        (["--model", "small", "--facts", "9"], "lower --facts"),
        (["--model", "small", "--batch-sizes", "0"], "batch_sizes"),
        (["--model", "small", "--batch-sizes", "x"], "batch_sizes"),
        (["--model", "small", "--languages", "fr"], "languages"),
        (["--model", "small", "--dtype", "float99"], "dtype"),
        (["--model", "small", "--out", "/dev/null/x"], "name another with --out"),
    ],
)
def test_what_concerns_the_whole_sweep_is_one_line_before_anything_is_computed(
    command: Command, places: Path, tmp_path: Path, argv: list[str], says: str
) -> None:
    (places / "empty.json").write_text("[]", encoding="utf-8")
    (places / "broken" / "parallel").mkdir(parents=True, exist_ok=True)
    (places / "broken" / "parallel" / "test.parquet").write_bytes(b"PAR1")
    code, out, err = command(*(GOOD if "--model" in argv else []), *argv)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert not (tmp_path / "out").exists()


def broken_models(places: Path) -> None:
    """Copies of the small model, each with something wrong."""
    from safetensors.torch import load_file, save_file

    weights = load_file(places / "small" / "model.safetensors")
    for name in ("no-tokenizer", "torn", "holes", "nan", "unknown"):
        if (places / name).is_dir():
            return
        shutil.copytree(places / "small", places / name)
    for file in (places / "no-tokenizer").glob("*token*"):
        file.unlink()
    torn = (places / "torn" / "model.safetensors").read_bytes()[:-3000]
    (places / "torn" / "model.safetensors").write_bytes(torn)
    lost = "model.layers.3.mlp.up_proj.weight"
    rest = {name: weight for name, weight in weights.items() if name != lost}
    save_file(rest, places / "holes" / "model.safetensors", {"format": "pt"})
    weights[lost][0, 0] = float("nan")
    save_file(weights, places / "nan" / "model.safetensors", {"format": "pt"})
    (places / "unknown" / "config.json").write_text('{"model_type": "nonesuch"}', encoding="utf-8")


def test_models_that_cannot_be_read_fail_in_a_line_each_and_the_next_one_is_edited(
    command: Command, places: Path, tmp_path: Path
) -> None:
    broken_models(places)
    names = ["no-tokenizer", "torn", "holes", "nan", "unknown", "set", "no/such/model", "small"]
    models = [word for name in names for word in ("--model", name)]
    code, out, err = command(*models, *GOOD)
    assert code == 0
    errors = cells(tmp_path / "out")
    assert errors["small ft native"] is None
    for name, says in {
        "no-tokenizer": "no tokenizer in it; name one with --tokenizer",
        "torn": "cannot be loaded: ",
        "holes": "lack weights, such as model.layers.3.mlp.up_proj.weight",
        "nan": "model.layers.3.mlp.up_proj.weight holds NaN",
        "unknown": "nonesuch",
        "set": "cannot be loaded",
        "model": "neither a folder here",
    }.items():
        error = errors[f"{name} ft native"]
        assert error is not None
        assert says in error
        assert "\n" not in error
        assert f"failed: {name} ft zh batch 4: {error}" in err
        assert error.replace("|", "\\|") in out
    assert "7 of 8 cells failed" in err
    assert command(*models, *GOOD, "--strict")[0] == 1


def test_unknown_names_layers_and_hyperparameters_fail_alone(
    command: Command, tmp_path: Path
) -> None:
    file = recipe(
        tmp_path,
        models=[{"name": "small", "params": "tiny"}],
        methods=["ft", "memmit", "memit", "pmet"],
        languages=["zh"],
        layers=[None, [1, 40], []],
        protocols=["native", "nativ"],
        params={"memit": {"lamda": 3}, "pmet": {"values": {"lr": "fast"}}},
        corpus="dataset",
    )
    code, _, err = command("--recipe", file, "--strict")
    assert code == 1
    errors = cells(tmp_path / "out")
    assert {name for name, error in errors.items() if error is None} == {"small ft native"}
    for name, says in {
        "small memmit native": "did you mean memit",
        "small memit native": "no 'lamda'; it has",
        "small pmet native": "'lr' is 'fast'",
        "small ft native [1, 40]": "small has layers 0 to 4, not 40",
        "small ft nativ": "unknown protocol 'nativ'; did you mean native",
    }.items():
        assert says in (errors[name] or "")
    assert err.count("failed: ") == len(errors) - 1


def test_nan_in_the_solve_fails_its_cell_alone(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "nan.yaml"
    file.write_text(
        "models: [{name: small, params: tiny}]\nmethods: [memit, ft]\nlanguages: [zh]\n"
        "corpus: dataset\nparams: {memit: {moment_weight: .nan}}\n",
        encoding="utf-8",
    )
    code, _, _ = command("--recipe", str(file), "--strict")
    assert code == 1
    assert cells(tmp_path / "out") == {
        "small memit native": "the solve came out as NaN or infinite",
        "small ft native": None,
    }


def test_where_no_cell_can_be_computed_the_results_say_so_and_the_exit_code_is_2(
    command: Command, tmp_path: Path
) -> None:
    code, out, err = command("--model", "small", *GOOD, "--methods", "fit", "--json")
    assert code == 2
    assert err.splitlines()[-1] == (
        "error: no cell could be computed: small fit zh batch 4: unknown method 'fit'; "
        "did you mean ft, memit?"
    )
    assert json.loads(out)["cells"][0]["status"] == "failed"
    assert cells(tmp_path / "out")["small fit native"] is not None


def test_rows_that_lack_a_text_are_counted_and_strict_minds(
    command: Command, places: Path, tmp_path: Path
) -> None:
    if not (places / "part").is_dir():
        dataset_folder(places / "part", RECORDS[:4])
        for file in (places / "part").iterdir():
            rows = json.loads(file.read_text(encoding="utf-8"))
            rows[-1]["loc"] = ""
            file.write_text(json.dumps(rows), encoding="utf-8")
    argv = ["--model", "small", *GOOD, "--dataset", "part"]
    code, _, err = command(*argv)
    assert code == 0
    assert "1 rows without all texts in both languages are left out" in err
    assert command(*argv, "--strict")[0] == 1


OUT_OF_MEMORY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
from clm_data.cli import main
main()
"""


def test_a_cell_that_wants_more_memory_than_there_is_fails_alone(tmp_path: Path) -> None:
    # The second moment of a layer of 80,000 takes 26 GB; fine-tuning needs none.
    model_folder(tmp_path / "wide", intermediate_size=80_000, num_hidden_layers=3, hidden_size=8)
    dataset_folder(tmp_path / "set", example_records(2))
    file = recipe(
        tmp_path,
        models=[{"name": "wide", "params": "tiny", "tokens_per_batch": 64}],
        methods=["memit", "ft"],
        languages=["en"],
        params={"ft": {"steps": 2}},
        generate=False,
        corpus="dataset",
    )
    argv = ["eval-baselines", "--dataset", "set", "--recipe", file, "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, *argv, "--cache", "cache", "--strict"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert cells(tmp_path / "out") == {
        "wide memit native": "second moments of wide: out of memory; lower tokens_per_batch",
        "wide ft native": None,
    }
