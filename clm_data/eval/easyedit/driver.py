"""Runs EasyEdit in its own environment. Stands alone: imports nothing of clm_data; Python 3.9.

    PYTHON -I driver.py identify|methods|serve [CHECKOUT]

`identify` prints versions without importing EasyEdit; `methods` imports it and adds what it offers.
`serve` answers lines of JSON on its input with lines of JSON on its output, in the working
directory, where it finds the model and EasyEdit's statistics and puts edits and `log.txt`,
everything that EasyEdit prints. Requests:

    {"command": "open", "name": FOLDER, "device": "cpu", "special": {...}, "checks": [...]}
    {"command": "edit", "method": "MEMIT", "hparams": {...}, "optional": {...}, "contexts": [...],
     "weights": [...], "module": "", "one_by_one": false, "facts": [...], "seed": 42,
     "continue": false, "out": "0.safetensors"}

An answer is `{"status": "ok", ...}`, or `{"status": "error", "kind", "message", "printed"}` with
the last line that EasyEdit printed. That of `edit` says as `kind` what the file has: `weights`,
`factors`, `codebook` or `side-memory`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG = Path("log.txt")
TOLERANCE = 0.01
"""Largest difference of a log-probability between the two environments' models."""


def load_part(name: str) -> Any:
    """A file next to this one as a module; nothing else of its folder can be imported."""
    file = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts, results = load_part("driver_imports"), load_part("driver_results")


# --- The model --------------------------------------------------------------------------------


def on_cpu() -> Any:
    """A mode that sends to the CPU what EasyEdit sends to `cuda:0`, which is in its code."""
    import torch
    from torch.overrides import TorchFunctionMode

    def to_cpu(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu") if value.type == "cuda" else value
        return "cpu" if isinstance(value, str) and value.startswith("cuda") else value

    class CpuMode(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            named = {name: to_cpu(value) for name, value in (kwargs or {}).items()}
            return func(*[to_cpu(value) for value in args], **named)

    return CpuMode()


class Session:
    """A model that stays loaded while EasyEdit edits it."""

    def __init__(self) -> None:
        self.algorithms = parts.import_easyeditor()
        self.model: Any = None
        self.tokenizer: Any = None
        self.name, self.device = "", "cpu"
        self.original: dict[str, Any] = {}
        self.modules: dict[str, Any] = {}

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load the model and compare it with the one that the caller measures."""
        import torch
        import transformers

        self.name, self.device = request["name"], request["device"]
        if self.device == "cpu":
            on_cpu().__enter__()  # for the rest of the process
        elif not torch.cuda.is_available():
            raise parts.DriverError("environment", f"torch finds no GPU for device {self.device}")
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                self.name, torch_dtype=torch.float32
            )
            tokenizer = transformers.PreTrainedTokenizerFast(
                tokenizer_file=str(Path(self.name) / "tokenizer.json"),
                model_input_names=["input_ids", "attention_mask"],
                **request["special"],
            )
        except Exception as error:
            reason = parts.describe(error)
            version = transformers.__version__
            raise parts.DriverError(
                "model", f"transformers {version} cannot read this model: {reason}"
            ) from error
        # EasyEdit's own choices: the padding token of LLaMA, the unknown token of Qwen.
        tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.unk_token is None:
            tokenizer.unk_token = tokenizer.eos_token
        tokenizer.padding_side = "right"
        self.model, self.tokenizer = model.to(self.device).eval(), tokenizer
        self.modules = dict(model.named_modules())
        for check in request["checks"]:
            self.check(check)
        return {"transformers": transformers.__version__}

    def check(self, check: dict[str, Any]) -> None:
        """Compare tokens and the log-probabilities after a text with those of the caller."""
        import torch

        self.check_tokens(check["text"], check["ids"])
        with torch.no_grad():
            ids = torch.tensor([check["ids"]], device=self.device)
            logits = self.model(input_ids=ids).logits[0, -1].float().log_softmax(-1)
        found = logits[torch.tensor(check["likely"], device=self.device)].tolist()
        worst = max(abs(a - b) for a, b in zip(found, check["log_probabilities"]))
        if not worst <= TOLERANCE:
            raise parts.DriverError(
                "model",
                "here the model computes something else (the environment's transformers is too old "
                f'or too new for it): a log-probability after "{check["text"]}" differs by '
                f"{worst:.3g}",
            )

    def check_tokens(self, text: str, ids: list[int]) -> None:
        """Compare the tokens of a text with those of the caller."""
        found = self.tokenizer(text)["input_ids"]
        if found != ids:
            raise parts.DriverError(
                "model", f'the tokenizer splits "{text}" differently: {found}, not {ids}'
            )

    def edit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Edit some facts; what the method left goes to the file `out`."""
        from safetensors.torch import save_file

        for fact in request["facts"]:
            self.check_tokens("{} {}".format(fact["prompt"], fact["target_new"]), fact["ids"])
        fresh = not request["continue"]
        if fresh:
            self.restore()
        hparams = self.hparams(request)
        apply = self.editor(hparams, request["method"]).apply_algo
        prepare_module(apply, request["contexts"], fresh)
        # WISE takes the tokens after the longest prompt as the answer, of rows padded on the left.
        self.tokenizer.padding_side = "left" if request["method"] == "WISE" else "right"
        hparams.sequential_edit = True  # else WISE starts each fact from the original weight
        self.keep(request["weights"])
        result = results.RESULTS.get(request["method"], results.Weights)(self.model, request, apply)
        seed_everything(request["seed"])
        started = time.perf_counter()
        try:
            for group in groups(request):
                apply(
                    self.model, self.tokenizer, group, hparams,
                    copy=False, return_orig_weights=True, keep_original_weight=False,
                )  # fmt: skip
                result.read_call()
        finally:
            result.close()
        seconds = time.perf_counter() - started
        keep_projection(hparams)
        tensors = {name: one.cpu().contiguous() for name, one in result.tensors().items()}
        save_file(tensors, request["out"])
        return {"seconds": seconds, "kind": result.kind, **result.about()}

    def hparams(self, request: dict[str, Any]) -> Any:
        """The hyperparameters as EasyEdit's class of the method."""
        method = request["method"]
        if method not in self.algorithms:
            raise parts.DriverError(
                "method",
                f"this EasyEdit has no {method}; it has {', '.join(sorted(self.algorithms))}",
            )
        wanted = f"{method}HyperParams".lower()  # GraceHyperParams for GRACE
        names = vars(sys.modules["easyeditor"])
        cls = next((names[name] for name in names if name.lower() == wanted), None)
        if cls is None:
            raise parts.DriverError("method", f"this EasyEdit has no {method}HyperParams")
        known = {field.name for field in dataclasses.fields(cls)}
        values = {k: v for k, v in request["optional"].items() if k in known}
        values.update(request["hparams"], alg_name=method, model_name=self.name)
        index = self.device.partition(":")[2]
        values["device"] = int(index) if index else 0
        try:
            return cls(**values)
        except TypeError as error:
            raise parts.DriverError("method", f"hyperparameters of {method}: {error}") from error

    def editor(self, hparams: Any, method: str) -> Any:
        """EasyEdit's editor of this model, which it takes as a pair in place of a name."""
        from easyeditor import BaseEditor

        hparams.model_name = (self.model, self.tokenizer)
        editor = BaseEditor.from_hparams(hparams)
        hparams.model_name = editor.model_name = self.name  # the methods read it as text
        return editor

    def keep(self, names: list[str]) -> None:
        """Copy the original of each weight that may change, once."""
        weights = dict(self.model.named_parameters())
        unknown = [name for name in names if name not in weights]
        if unknown:
            raise parts.DriverError("model", f"the model has no weight {unknown[0]}")
        for name in names:
            if name not in self.original:
                self.original[name] = weights[name].detach().clone()

    def restore(self) -> None:
        """Put the original modules and weights back; without LoRA's adapter and settings."""
        import torch

        for name, module in self.modules.items():  # outer ones first
            if name and self.model.get_submodule(name) is not module:
                parent, _, last = name.rpartition(".")
                setattr(self.model.get_submodule(parent), last, module)
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
            self.model.gradient_checkpointing_disable()
            self.model.disable_input_require_grads()
        weights = dict(self.model.named_parameters())
        for weight in weights.values():
            weight.requires_grad_().grad = None
        with torch.no_grad():
            for name, original in self.original.items():
                weights[name].copy_(original)


def groups(request: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The facts of each call of the method: one by one for methods that take one fact."""
    facts = [
        {
            "prompt": fact["prompt"],
            "subject": fact["subject"],
            "target_new": fact["target_new"],
            "ground_truth": fact.get("ground_truth", ""),
            "loc_prompt": fact["unrelated"],
            "portability": {},
            "locality": {},
        }
        for fact in request["facts"]
    ]
    return [[fact] for fact in facts] if request["one_by_one"] else [facts]


def prepare_module(apply: Any, contexts: list[Any], fresh: bool) -> None:
    """Set what the method's module keeps in globals: contexts, and keys of earlier edits."""
    module: Any = sys.modules[apply.__module__]
    # WISE keeps them where the function is that samples them.
    sampler = getattr(module, "get_context_templates", apply)
    cached: Any = sys.modules[sampler.__module__]
    if hasattr(cached, "CONTEXT_TEMPLATES_CACHE"):
        nested = module.__name__.split(".")[-2] not in ("rome", "r_rome", "wise")
        cached.CONTEXT_TEMPLATES_CACHE = [contexts[:1], contexts[1:]] if nested else list(contexts)
    if fresh and hasattr(module, "cache_c_new"):
        module.cache_c_new = False
    if fresh and hasattr(module, "P_loaded"):
        module.P_loaded = False


def keep_projection(hparams: Any) -> None:
    """Keep AlphaEdit's projection under the name that its hyperparameters ask for."""
    made, wanted = Path("null_space_project.pt"), getattr(hparams, "P_loc", None)
    if wanted and made.is_file():
        made.replace(wanted)


def seed_everything(seed: int) -> None:
    """Seed the generators that EasyEdit draws from."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


# --- The process ------------------------------------------------------------------------------


def last_line(start: int) -> str:
    """The last line with a word or number that was printed after a position of the log."""
    text = LOG.read_bytes()[start:].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if any(map(str.isalnum, line))), "")


def answer(request: dict[str, Any], session: list[Session]) -> dict[str, Any]:
    """Carry out a request; errors are an answer as well."""
    sys.stdout.flush()
    sys.stderr.flush()
    start = LOG.stat().st_size
    try:
        if request.get("protocol") != parts.PROTOCOL:
            raise parts.DriverError("request", f"the driver speaks protocol {parts.PROTOCOL}")
        if not session:
            session.append(Session())
        command = {"open": session[0].open, "edit": session[0].edit}[request["command"]]
        return {"status": "ok", **command(request)}
    except parts.DriverError as error:
        kind, message = error.kind, str(error)
    except Exception as error:  # all are reported; their traceback is in the log
        kind, message = "method", parts.describe(error)
        where = [one for one in traceback.extract_tb(error.__traceback__) if "easyeditor" in one[0]]
        message += f" ({Path(where[-1][0]).name}:{where[-1][1]})" if where else ""
    sys.stdout.flush()
    sys.stderr.flush()
    printed = parts.shortened(last_line(start))
    traceback.print_exc()
    return {"status": "error", "kind": kind, "message": message, "printed": printed}


@contextlib.contextmanager
def output_to_log() -> Iterator[Any]:
    """Send everything that is printed to the log; yields the real output."""
    real = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with LOG.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        yield real


def serve() -> None:
    """Answer requests until the input ends."""
    session: list[Session] = []
    with output_to_log() as output:
        for line in sys.stdin:
            reply = answer(json.loads(line), session)
            output.write(json.dumps(reply) + "\n")
            output.flush()


def main(arguments: list[str]) -> int:
    """Run a command; errors of `identify` and `methods` are printed as JSON as well."""
    command, checkout = arguments[0], arguments[1] if len(arguments) > 1 else None
    if checkout:
        sys.path.insert(0, checkout)
    if command == "serve":
        serve()
        return 0
    questions = {"identify": parts.identify, "methods": parts.methods}
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is printed while importing is not the answer
    try:
        reply = {"status": "ok", **questions[command](checkout)}
    except parts.DriverError as error:
        reply = {"status": "error", "kind": error.kind, "message": str(error), "printed": ""}
    output.write(json.dumps(reply) + "\n")
    output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
