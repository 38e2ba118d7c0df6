"""The contract of edits: evaluation asks every model in the same way, edited or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.example_records import example_records
from helpers.small_models import REQUESTS, small_model

from clm_data.errors import InputFileError
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import EditedModel, applied, load_edit
from clm_data.eval.editors.tensor_files import save_safetensors
from clm_data.eval.errors import EditError
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE
from clm_data.eval.results import Setting
from clm_data.eval.sweep.answers import Question, generate_answers, predict_answers
from clm_data.eval.sweep.cell import run_cell
from clm_data.eval.sweep.measure import Evaluator
from clm_data.records import Language

if TYPE_CHECKING:
    from torch import Tensor

QUESTIONS = [
    Question("zh", "鲁迅的原名是", "张三"),
    Question("en", "The capital of France is", "Rome"),
    Question("en", "Water boils at", "100 degrees"),
]
SETTING = Setting(model="m", method="notes", language="zh", batch_size=2)


@dataclass
class Watched:
    """An edited model that puts a note before every prompt and remembers the masks it is given."""

    base: LoadedModel
    note: str = "天气。"
    masks: list[Tensor] = field(default_factory=list)
    inside: int = 0

    def rewrite(self, prompt: str, lang: Language) -> str:
        return self.note + prompt

    @contextmanager
    def routed(self, prompt: Tensor) -> Iterator[None]:
        self.masks.append(prompt)
        handle = self.base.mlp_out(0).register_forward_hook(self._count)
        try:
            yield
        finally:
            handle.remove()

    def _count(self, *_: Any) -> None:
        self.inside += 1


@dataclass(frozen=True)
class Notes:
    """The edit of a method that puts all facts before every prompt."""

    model: str
    texts: tuple[str, ...]
    edited: tuple[str, ...]
    method: str = "notes"
    origin: str = ""
    refused: tuple[tuple[str, str], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    steps: tuple[int, ...] = ()
    arrived: float | None = None

    def plus(self, later: Notes) -> Notes:
        return replace(self, texts=self.texts + later.texts, edited=self.edited + later.edited)

    def apply_to(self, model: LoadedModel) -> AbstractContextManager[EditedModel]:
        return nullcontext(Watched(model, "".join(self.texts)))

    def save(self, path: Path) -> None:
        save_safetensors({}, path, {"kind": "scraps", "texts": "".join(self.texts)})


class NotesEditor:
    """Notes every fact; remembers how many earlier ones each edit came on top of."""

    def __init__(self) -> None:
        self.past: list[int] = []

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Notes | None = None
    ) -> Notes:
        self.past.append(0 if past is None else len(past.edited))
        texts = tuple(f"{request.prompt}{request.target}。" for request in requests)
        return Notes(model.name, texts, tuple(request.id for request in requests))


def test_without_an_edit_the_model_itself_answers() -> None:
    model = small_model("llama")
    with applied(model, None) as edited:
        assert edited is model
    assert edited.rewrite("鲁迅的原名是", "zh") == "鲁迅的原名是"
    ids = torch.tensor([[5, 6, 7]])
    plain = model.model(input_ids=ids).logits
    with edited.routed(ids > 0):
        assert torch.equal(model.model(input_ids=ids).logits, plain)


def test_predictions_are_those_for_the_rewritten_prompts() -> None:
    model = small_model("llama")
    edited = Watched(model)
    rewritten = [replace(one, prompt=edited.note + one.prompt) for one in QUESTIONS]
    assert predict_answers(edited, QUESTIONS, NATIVE) == predict_answers(model, rewritten, NATIVE)
    assert predict_answers(edited, QUESTIONS, NATIVE) != predict_answers(model, QUESTIONS, NATIVE)
    assert edited.inside


def test_continuations_are_those_of_the_rewritten_prompts() -> None:
    model = small_model("llama")
    edited = Watched(model)
    rewritten = [replace(one, prompt=edited.note + one.prompt) for one in QUESTIONS]
    assert generate_answers(edited, QUESTIONS) == generate_answers(model, rewritten)
    assert edited.inside > len(edited.masks)  # every decoding step is inside


def test_predictions_are_routed_by_the_tokens_of_the_prompts() -> None:
    model = small_model("llama")
    edited = Watched(model, note="")
    predict_answers(edited, QUESTIONS, NATIVE)
    (mask,) = edited.masks
    lengths = sorted(len(model.tokenizer(one.prompt)["input_ids"]) for one in QUESTIONS)
    assert sorted(mask.sum(1).tolist()) == lengths
    assert mask[:, 0].all()  # padding and answers are on the right
    assert mask.shape[1] > lengths[0]


def test_continuations_are_routed_by_the_tokens_of_the_prompts() -> None:
    model = small_model("llama")
    edited = Watched(model, note="")
    generate_answers(edited, QUESTIONS)
    (mask,) = edited.masks
    lengths = sorted(len(model.tokenizer(one.prompt)["input_ids"]) for one in QUESTIONS)
    assert sorted(mask.sum(1).tolist()) == lengths
    assert mask[:, -1].all()  # padding is on the left
    assert mask.shape[1] == lengths[-1]


@pytest.mark.parametrize(("mode", "past"), [("batch", [0, 0]), ("sequential", [0, 2])])
def test_a_cell_takes_an_edit_of_any_family(tmp_path: Path, mode: str, past: list[int]) -> None:
    model, records = small_model("llama"), example_records(4)
    evaluator, editor = Evaluator(model, records, NATIVE), NotesEditor()
    setting = SETTING.model_copy(update={"mode": mode})
    before = model.fingerprint()
    cell = run_cell(
        evaluator, editor, setting, "key", bootstrap=Bootstrap(resamples=0), deltas_folder=tmp_path
    )
    assert editor.past == past
    assert model.fingerprint() == before
    assert cell.items[0].zh["p_new"] != evaluator.baseline[0].measures["zh"]["p_new"]
    assert len(list(tmp_path.iterdir())) == (1 if mode == "sequential" else 2)


def test_deltas_are_loaded_as_an_edit(tmp_path: Path) -> None:
    deltas = Deltas("ft", "m", {"a.weight": WeightDelta(torch.ones(2, 3))}, ("x",))
    deltas.save(tmp_path / "edit.safetensors")
    loaded = load_edit(tmp_path / "edit.safetensors")
    assert isinstance(loaded, Deltas)
    assert torch.equal(loaded.weights["a.weight"].left, torch.ones(2, 3))


def test_what_is_no_edit_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "edit.safetensors"
    file.write_bytes(b"text")
    with pytest.raises(InputFileError, match="contains no saved edit"):
        load_edit(file)
    Notes("m", (), ()).save(file)
    with pytest.raises(InputFileError, match="unknown kind 'scraps', not deltas"):
        load_edit(file)


def test_edits_of_different_kinds_are_not_added() -> None:
    deltas = Deltas("ft", "m", {}, ("x",))
    with pytest.raises(EditError, match="edits of ft and notes cannot be added"):
        deltas.plus(Notes("m", (), ()))  # type: ignore[arg-type]


def test_an_edit_of_another_model_is_refused_in_any_family() -> None:
    model = small_model("llama")
    edit = NotesEditor().edit(small_model("gpt2"), REQUESTS)
    with (
        pytest.raises(EditError, match=r"an edit of the model gpt2-0 cannot be used with llama-0"),
        applied(model, edit),
    ):
        pass
