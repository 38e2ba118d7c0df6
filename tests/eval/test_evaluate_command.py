"""The commands `eval-baselines` and `report`: results, exit codes and error messages."""

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
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, `set`, and a model, `small`."""
    folder = tmp_path_factory.mktemp("evaluate")
    dataset_folder(folder / "set", RECORDS[:4])
    model_folder(folder / "small")
    return folder


@pytest.fixture
def command(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """Runs eval-baselines in the folder `inputs`, with results in `tmp_path/out`."""
    monkeypatch.chdir(inputs)
    fixed = ["--out", str(tmp_path / "out"), "--cache", str(inputs / "cache")]

    def evaluate(*argv: str) -> tuple[int, str, str]:
        given = [] if "--dataset" in argv else ["--dataset", "set"]
        code = run(["eval-baselines", *given, *fixed, *argv])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return evaluate


def errors_by_cell(folder: Path) -> dict[str, str | None]:
    """The error of each cell of `results.json`, None if it is done, by model, method and so on."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    out = {}
    for cell in found:
        setting = cell["setting"]
        words = [setting["model"], setting["method"], setting["protocol"]]
        words += [str(setting["layers"])] if setting["layers"] is not None else []
        out[" ".join(words)] = cell["error"]
        assert (cell["status"] == "failed") == (cell["error"] is not None)
    return out


def recipe_file(folder: Path, **fields: Any) -> str:
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(fields), encoding="utf-8")
    return str(file)


def test_eval_baselines_prints_the_table_and_report_prints_it_again(
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
    ("argv", "message"),
    [
        ([], "no model given"),
        (["--recipe", "tabel1"], "did you mean table1"),
        (["--recipe", "nowhere.yaml"], "no such file"),
        (["--model", "small", "--dataset", "./nowhere"], "no such file or folder"),
        (["--model", "small", "--dataset", "small"], "no dataset found"),
        (["--model", "small", "--dataset", "small/config.json"], "known formats: "),
        (["--model", "small", "--dataset", "empty.json"], "contains no rows"),
        (["--model", "small", "--dataset", "broken"], "not the parallel rows"),
        (["--model", "small", "--dataset", "set/chinese_fields_with_loc.json"], "no record with"),
        (["--model", "small", "--facts", "9"], "lower --facts"),
        (["--model", "small", "--batch-sizes", "0"], "batch_sizes"),
        (["--model", "small", "--batch-sizes", "x"], "batch_sizes"),
        (["--model", "small", "--languages", "fr"], "languages"),
        (["--model", "small", "--dtype", "float99"], "dtype"),
        (["--model", "small", "--out", "/dev/null/x"], "choose another with --out"),
    ],
)
def test_an_error_of_the_whole_sweep_is_one_line_and_nothing_is_written(
    command: Command, inputs: Path, tmp_path: Path, argv: list[str], message: str
) -> None:
    (inputs / "empty.json").write_text("[]", encoding="utf-8")
    (inputs / "broken" / "parallel").mkdir(parents=True, exist_ok=True)
    (inputs / "broken" / "parallel" / "test.parquet").write_bytes(b"PAR1")
    code, out, err = command(*(GOOD if "--model" in argv else []), *argv)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not (tmp_path / "out").exists()


def write_broken_models(inputs: Path) -> None:
    """Copy the small model several times, each with a different defect."""
    from safetensors.torch import load_file, save_file

    weights = load_file(inputs / "small" / "model.safetensors")
    for name in ("no-tokenizer", "torn", "holes", "nan", "unknown"):
        if (inputs / name).is_dir():
            return
        shutil.copytree(inputs / "small", inputs / name)
    for file in (inputs / "no-tokenizer").glob("*token*"):
        file.unlink()
    torn = (inputs / "torn" / "model.safetensors").read_bytes()[:-3000]
    (inputs / "torn" / "model.safetensors").write_bytes(torn)
    lost = "model.layers.3.mlp.up_proj.weight"
    rest = {name: weight for name, weight in weights.items() if name != lost}
    save_file(rest, inputs / "holes" / "model.safetensors", {"format": "pt"})
    weights[lost][0, 0] = float("nan")
    save_file(weights, inputs / "nan" / "model.safetensors", {"format": "pt"})
    (inputs / "unknown" / "config.json").write_text('{"model_type": "nonesuch"}', encoding="utf-8")


def test_models_that_cannot_be_read_fail_with_a_reason_and_the_next_one_is_edited(
    command: Command, inputs: Path, tmp_path: Path
) -> None:
    write_broken_models(inputs)
    names = ["no-tokenizer", "torn", "holes", "nan", "unknown", "set", "no/such/model", "small"]
    models = [word for name in names for word in ("--model", name)]
    code, out, err = command(*models, *GOOD)
    assert code == 0
    errors = errors_by_cell(tmp_path / "out")
    assert errors["small ft native"] is None
    for name, reason in {
        "no-tokenizer": "contains no tokenizer; specify one with --tokenizer",
        "torn": "cannot be loaded: ",
        "holes": "missing weights, such as model.layers.3.mlp.up_proj.weight",
        "nan": "model.layers.3.mlp.up_proj.weight contains NaN",
        "unknown": "nonesuch",
        "set": "cannot be loaded",
        "model": "neither a local folder",
    }.items():
        error = errors[f"{name} ft native"]
        assert error is not None
        assert reason in error
        assert "\n" not in error
        assert f"failed: {name} ft zh batch 4: {error}" in err
        assert error.replace("|", "\\|") in out
    assert "7 of 8 cells failed" in err
    assert command(*models, *GOOD, "--strict")[0] == 1


def test_unknown_names_layers_and_hyperparameters_fail_only_their_cells(
    command: Command, tmp_path: Path
) -> None:
    file = recipe_file(
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
    errors = errors_by_cell(tmp_path / "out")
    assert {name for name, error in errors.items() if error is None} == {"small ft native"}
    for name, reason in {
        "small memmit native": "did you mean memit",
        "small memit native": "no 'lamda'; it has",
        "small pmet native": "'lr' is 'fast'",
        "small ft native [1, 40]": "small has layers 0 to 4, not 40",
        "small ft nativ": "unknown protocol 'nativ'; did you mean native",
    }.items():
        assert reason in (errors[name] or "")
    assert err.count("failed: ") == len(errors) - 1


def test_a_hyperparameter_of_nan_fails_only_its_cell(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "nan.yaml"
    file.write_text(
        "models: [{name: small, params: tiny}]\nmethods: [memit, ft]\nlanguages: [zh]\n"
        "corpus: dataset\nparams: {memit: {moment_weight: .nan}}\n",
        encoding="utf-8",
    )
    code, _, _ = command("--recipe", str(file), "--strict")
    assert code == 1
    assert errors_by_cell(tmp_path / "out") == {
        "small memit native": (
            "MemitParams: 'moment_weight' is nan: Input should be a finite number"
        ),
        "small ft native": None,
    }


def test_if_all_cells_fail_the_results_say_so_and_the_exit_code_is_2(
    command: Command, tmp_path: Path
) -> None:
    code, out, err = command("--model", "small", *GOOD, "--methods", "fit", "--json")
    assert code == 2
    assert err.splitlines()[-1] == (
        "error: all cells failed: small fit zh batch 4: unknown method 'fit'; "
        "did you mean ft, ft-m, memit?"
    )
    assert json.loads(out)["cells"][0]["status"] == "failed"
    assert errors_by_cell(tmp_path / "out")["small fit native"] is not None


def test_rows_that_lack_a_text_are_counted_and_fail_under_strict(
    command: Command, inputs: Path, tmp_path: Path
) -> None:
    if not (inputs / "part").is_dir():
        dataset_folder(inputs / "part", RECORDS[:4])
        for file in (inputs / "part").iterdir():
            rows = json.loads(file.read_text(encoding="utf-8"))
            rows[-1]["loc"] = ""
            file.write_text(json.dumps(rows), encoding="utf-8")
    argv = ["--model", "small", *GOOD, "--dataset", "part"]
    code, _, err = command(*argv)
    assert code == 0
    assert "skipped 1 rows that lack a text in one of the languages" in err
    assert command(*argv, "--strict")[0] == 1


OUT_OF_MEMORY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
from clm_data.cli import main
main()
"""


def test_a_cell_that_runs_out_of_memory_fails_alone(tmp_path: Path) -> None:
    # The second moment of a layer with 80,000 inputs takes 26 GB; fine-tuning needs none.
    model_folder(tmp_path / "wide", intermediate_size=80_000, num_hidden_layers=3, hidden_size=8)
    dataset_folder(tmp_path / "set", example_records(2))
    file = recipe_file(
        tmp_path,
        models=[{"name": "wide", "params": "tiny", "tokens_per_batch": 64}],
        methods=["memit", "ft"],
        languages=["en"],
        params={"ft": {"epochs": 2}},
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
    assert errors_by_cell(tmp_path / "out") == {
        "wide memit native": "second moments of wide: out of memory; lower tokens_per_batch",
        "wide ft native": None,
    }


@pytest.mark.parametrize(("size", "code"), [("3", 1), ("2", 0)])
def test_facts_that_no_batch_holds_are_said_and_fail_under_strict(
    command: Command, size: str, code: int
) -> None:
    argv = ["--model", "small", *GOOD, "--batch-sizes", size]
    found, _, err = command(*argv, "--strict")
    assert found == code
    assert ("1 of 4 facts left out, because batches of 3 do not divide 4" in err) is (code == 1)
    assert command(*argv)[0] == 0
