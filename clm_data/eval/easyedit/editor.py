"""EasyEdit as an editor: its edits in the place of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.eval.easyedit.answers import edit_of
from clm_data.eval.easyedit.found import EasyEdit
from clm_data.eval.easyedit.handover import model_checks, write_model, write_statistics
from clm_data.eval.easyedit.params import EasyEditParams, easyedit_params, model_folder_name
from clm_data.eval.easyedit.process import DriverProcess
from clm_data.eval.editors.base import Editor, EditorParams, Setup
from clm_data.eval.editors.edits import Edit
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.moments import Moments
from clm_data.eval.editors.origin import model_id
from clm_data.eval.editors.side_memory import SideScope
from clm_data.eval.editors.wise import Wise
from clm_data.eval.editors.wise_training import WiseParams
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest

_CHECKED = 4
"""Prompts after which the two environments' models are compared."""


class EasyEditEngine:
    """EasyEdit with one model, which stays loaded between edits; shared by the cells of a model.

    Args:
        environment: The environment with EasyEdit.
        model: The unedited model, in float32.
        folder: Where a temporary folder for files is made.

    Raises:
        EditError: `folder` cannot be written.
    """

    def __init__(self, environment: EasyEdit, model: LoadedModel, folder: Path) -> None:
        self.environment, self.model = environment, model
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._temporary = tempfile.TemporaryDirectory(prefix="easyedit-", dir=folder)
        except OSError as error:
            raise EditError(
                f"{folder}: the model for EasyEdit cannot be written there ({error.strerror}); "
                "choose another folder with --cache"
            ) from error
        self.folder = Path(self._temporary.name)
        self._driver: DriverProcess | None = None
        self._failure: EditError | None = None
        self._moments: dict[int, Moments] = {}
        self._edits = 0
        self.edited: tuple[str, ...] = ()
        """Ids of the facts that EasyEdit's copy of the model holds."""

    def close(self) -> None:
        """End EasyEdit's process and delete the files."""
        if self._driver is not None:
            self._driver.close()
        self._temporary.cleanup()

    def run(
        self,
        params: EasyEditParams,
        facts: Sequence[PlacedFact],
        setup: Setup,
        unrelated: Sequence[str],
        *,
        more: bool,
    ) -> tuple[dict[str, Any], Path]:
        """Edit facts; the driver's answer and the file with what the method left.

        Args:
            params: EasyEdit's hyperparameters.
            facts: The facts.
            setup: Contexts and second moments.
            unrelated: For each fact a text that is not to change; empty for methods without.
            more: Whether the edit is on top of the last one.

        Raises:
            EditError: EasyEdit failed, or the model cannot be handed over.
        """
        if setup.moments is not None and id(setup.moments) not in self._moments:
            write_statistics(setup.moments, self.model, self.folder)
            self._moments[id(setup.moments)] = setup.moments
        driver = self._open([fact.request.prompt for fact in facts[:_CHECKED]])
        file = self.folder / f"{self._edits}.safetensors"
        self._edits += 1
        requests = [fact.request for fact in facts]
        answer = driver.ask(
            "edit",
            method=params.method,
            hparams=params.hparams,
            optional=params.optional,
            one_by_one=params.one_by_one,
            weights=params.weights,
            module=params.module,
            contexts=list(setup.contexts.for_fact(setup.protocol, requests[0].lang)),
            facts=[
                {**self._fact(request), "unrelated": text}
                for request, text in zip(requests, unrelated, strict=True)
            ],
            seed=setup.contexts.seed or 0,
            out=file.name,
            **{"continue": more},
        )
        return answer, file

    def _open(self, prompts: Sequence[str]) -> DriverProcess:
        """The driver with the model loaded; it is started when first needed.

        Raises:
            EditError: EasyEdit or its transformers cannot work with this model; raised again
                without another attempt.
        """
        if self._failure is not None:
            raise self._failure
        if self._driver is None or not self._driver.alive:
            driver: DriverProcess | None = None
            try:
                name = model_folder_name(self.model)
                special = write_model(self.model, self.folder / name, self.environment.versions)
                driver = DriverProcess(self.environment, self.folder)
                checks = model_checks(self.model, prompts)
                driver.ask(
                    "open", name=name, device=str(self.model.device), special=special, checks=checks
                )
            except EditError as error:
                if driver is not None:
                    driver.close()
                self._failure = error
                raise
            self._driver = driver
        return self._driver

    def _fact(self, request: EditRequest) -> dict[str, Any]:
        text = f"{request.prompt} {request.target}"
        return {
            "prompt": request.prompt,
            "subject": request.subject,
            "target_new": request.target,
            "ids": list(self.model.tokenizer(text)["input_ids"]),
        }


@dataclass(frozen=True)
class EasyEditEditor:
    """An editor whose edits EasyEdit computes, from the same facts and hyperparameters.

    It gets the contexts of ours, the second moments of ours, and only facts that ours can place.

    Attributes:
        method: Our name of the method.
        params: Its hyperparameters.
        setup: Protocol, contexts and second moments.
        engine: EasyEdit with the model.
        ours: Our editor, after `fit`, for WISE: EasyEdit gets the same unrelated texts.
    """

    method: str
    params: EditorParams
    setup: Setup
    engine: EasyEditEngine
    ours: Editor[Any] | None = None

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Edit | None = None
    ) -> Edit:
        """See `Editor.edit`; `past` must be what EasyEdit computed last."""
        self.setup.check_model(model)
        engine = self.engine
        if past is not None and engine.edited != past.edited:
            raise EditError(f"EasyEdit's {self.method}: it can only go on from its own last edit")
        engine.edited = ()
        facts, refused = self._place(model, requests)
        checkout = engine.environment.checkout is not None
        params = easyedit_params(self.method, self.params, model, len(facts), checkout=checkout)
        unrelated, scope = [""] * len(facts), None
        if isinstance(self.params, WiseParams):
            unrelated, scope = self._side(model, facts, len(past.edited) if past else 0)
        answer, file = engine.run(params, facts, self.setup, unrelated, more=past is not None)
        edited = tuple(fact.request.id for fact in facts)
        about = {
            "method": self.method,
            "model": model.name,
            "edited": edited,
            "refused": refused,
            "seconds": {"EasyEdit": answer["seconds"]},
            "origin": model_id(model),
        }
        edit = edit_of(answer, file, about, model, self.params, past, scope)
        file.unlink()
        engine.edited = (past.edited if past is not None else ()) + edited
        return edit

    def _side(
        self, model: LoadedModel, facts: Sequence[PlacedFact], before: int
    ) -> tuple[list[str], SideScope]:
        """WISE's unrelated texts by fact, and how its memory is chosen."""
        assert isinstance(self.ours, Wise)
        scope, protocol = self.ours.scope_of(model), self.setup.protocol
        if before + len(facts) >= (scope.save_freq or 0):
            raise EditError(
                f"wise: EasyEdit is asked for one side memory, and starts another after "
                f"{scope.save_freq} facts; set save_freq above {before + len(facts)}"
            )
        texts = [self.ours.unrelated_to(fact.request)[0] for fact in facts]
        return [f"{one.prompt}{protocol.join(one.lang)}{one.answer}" for one in texts], scope

    def _place(
        self, model: LoadedModel, requests: Sequence[EditRequest]
    ) -> tuple[list[PlacedFact], tuple[tuple[str, str], ...]]:
        """The facts that both can edit, and (id, reason) of the others."""
        good: list[EditRequest] = []
        refused: list[tuple[str, str]] = []
        for request in requests:
            reason = unfit(request)
            if reason:
                refused.append((request.id, f"{request.id}: {reason}"))
            else:
                good.append(request)
        if not good and refused:
            raise EditError(f"no fact can be edited by EasyEdit: {refused[0][1]}")
        joiner = "" if self.method == "pmet" else None  # as `Pmet.joiner` under this protocol
        facts, others = place_facts(
            model, good, self.setup.protocol, self.setup.contexts, joiner=joiner
        )
        return facts, (*refused, *others)


def unfit(request: EditRequest) -> str:
    """Why EasyEdit cannot edit a fact that ours can; empty if it can.

    It replaces the subject in the prompt by `{}`, wherever it occurs, and formats the result.
    """
    if request.prompt.count(request.subject) > 1:
        return f'EasyEdit takes a subject that is once in the prompt, not "{request.subject}"'
    if any(mark in text for text in (request.prompt, request.subject) for mark in "{}"):
        return "EasyEdit takes no braces in a prompt"
    return ""
