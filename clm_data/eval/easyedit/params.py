"""Our hyperparameters as EasyEdit's: the same layers, values and weights under its names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clm_data.eval.easyedit import METHODS
from clm_data.eval.editors.alphaedit import AlphaEditParams
from clm_data.eval.editors.base import EditorParams, switches
from clm_data.eval.editors.ft import FineTuningParams
from clm_data.eval.editors.grace import GraceParams
from clm_data.eval.editors.lora import LoraParams, adapted_maps
from clm_data.eval.editors.memit import MemitParams
from clm_data.eval.editors.multilayer import MultilayerParams
from clm_data.eval.editors.pmet import PmetParams
from clm_data.eval.editors.rome import RomeParams
from clm_data.eval.editors.ultraedit import UltraEditParams
from clm_data.eval.editors.values import ValueParams
from clm_data.eval.editors.wise_training import WiseParams
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.records import digest

STATISTICS, SAMPLES = "stats", 100_000
"""Folder of second moments in the driver's folder; number of texts in their file names."""


def model_folder_name(model: LoadedModel) -> str:
    """The name under which EasyEdit gets a model; parts of its code choose by the name."""
    return "gpt2-xl" if model.layout.transposed else "llama"


@dataclass(frozen=True)
class EasyEditParams:
    """Hyperparameters as EasyEdit has them.

    Attributes:
        method: EasyEdit's name of the method.
        hparams: Fields that its class must have.
        optional: Fields that only some versions have, and that do not affect the numbers.
        weights: Paths of the weights that the method changes.
        module: Path of the module that it replaces; empty if it replaces none.
        one_by_one: Whether the method takes one fact at a time.
    """

    method: str
    hparams: dict[str, Any]
    optional: dict[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    module: str = ""
    one_by_one: bool = False


def easyedit_params(
    method: str, params: EditorParams, model: LoadedModel, facts: int, *, checkout: bool
) -> EasyEditParams:
    """Translate hyperparameters.

    Args:
        method: Our name of the method.
        params: Its hyperparameters.
        model: The model, whose parts are named.
        facts: Number of facts per edit.
        checkout: Whether EasyEdit is a checkout; the release has fewer settings.

    Raises:
        EditError: EasyEdit has no such method, or a value is another than the one that is fixed
            in its code; the message names it.
    """
    if method not in METHODS:
        raise EditError(f"EasyEdit's {method} is not supported; choose from {', '.join(METHODS)}")
    for name, on in switches(params).items():
        if on:
            raise EditError(
                f"{method}: EasyEdit has no {name}; leave it out, or edit without EasyEdit"
            )
    optional = {"batch_size": facts, "max_length": 40, "model_parallel": False, "fp16": False}
    if isinstance(params, LoraParams):
        return _lora(params, model, optional)
    if isinstance(params, UltraEditParams):
        return _ultraedit(params, model, facts, optional)
    if isinstance(params, GraceParams):
        return _grace(params, model, optional)
    if isinstance(params, WiseParams):
        return _wise(params, model, optional)
    weights = tuple(model.layout.weight(layer) for layer in params.edited_layers)
    common = {**_modules(model, method), "layers": list(params.edited_layers)}
    if isinstance(params, FineTuningParams):
        hparams = {**common, **_fine_tuning(method, params, checkout)}
        one_by_one = method == "ft-m"
        return EasyEditParams(METHODS[method], hparams, optional, weights, one_by_one=one_by_one)
    if not isinstance(params, RomeParams | MultilayerParams):
        raise EditError(f"EasyEdit's hyperparameters of {method} are not known")
    hparams = {
        **common,
        **_values(params.values, model, eases=isinstance(params, PmetParams)),
        **_statistics(),
    }
    if isinstance(params, RomeParams):
        hparams |= {"mom2_adjustment": params.use_moments}
        hparams |= {"context_template_length_params": [[5, 10], [10, 10]]}  # ours are given
        return EasyEditParams(METHODS[method], hparams, optional, weights, one_by_one=True)
    hparams |= {"mom2_adjustment": True, "layer_selection": "all", "mom2_update_weight": 0.0}
    if isinstance(params, MemitParams):
        hparams |= {"mom2_update_weight": params.moment_weight}
    if isinstance(params, PmetParams):
        hparams |= {
            "nll_loss_factor": params.values.nll_factor,
            "rewrite_module_tmps": [hparams["rewrite_module_tmp"]],
        }
    if isinstance(params, AlphaEditParams):
        projection = digest([list(params.layers), params.threshold])[:12]
        hparams |= {
            "nullspace_threshold": params.threshold,
            "L2": params.ridge,
            "P_loc": f"projection-{projection}.pt",
        }
    return EasyEditParams(METHODS[method], hparams, optional, weights)


def _fine_tuning(method: str, params: FineTuningParams, checkout: bool) -> dict[str, Any]:
    """FT-L trains all facts at once at the prompt's last token, FT-M one after another."""
    one_by_one = method == "ft-m"
    fixed = {
        "stop_at": 1e-2,
        "append_eos": False,
        "batch_size": 1 if one_by_one else None,
        "order": "depth-first" if one_by_one else "breadth-first",
        "objective": "answer" if one_by_one else "protocol",
    }
    _check_fixed(method, params, fixed)
    objective = "target_new" if one_by_one else "prompt_last"
    return {
        "num_steps": params.epochs,
        "lr": params.lr,
        "weight_decay": 0.0,
        "kl_factor": 0.0,
        "norm_constraint": False if params.limit is None else float(params.limit),
        # The release has no such setting and does what `prompt_last` names.
        **({"objective_optimization": objective} if checkout else {}),
    }


def _values(values: ValueParams, model: LoadedModel, *, eases: bool) -> dict[str, Any]:
    """The optimization of target values."""
    fixed = {"stop_at": 0.05, "ease_off": eases} | ({} if eases else {"nll_factor": 1.0})
    _check_fixed("values", values, fixed)
    return {
        "fact_token": "subject_last",
        "v_num_grad_steps": values.steps,
        "v_lr": values.lr,
        "v_loss_layer": model.depth - 1,
        "v_weight_decay": values.weight_decay,
        "clamp_norm_factor": values.clamp,
        "kl_factor": values.kl_factor,
    }


def _lora(params: LoraParams, model: LoadedModel, optional: dict[str, Any]) -> EasyEditParams:
    """One fact after another in the same adapter, each with a new Adam and all of its steps."""
    fixed = {"append_eos": False, "batch_size": 1, "objective": "answer", "order": "depth-first"}
    _check_fixed("lora", params, fixed | {"stop_at": 0})
    targets = dict.fromkeys(path.rpartition(".")[2] for path in adapted_maps(model, params))
    hparams = {
        "lora_type": "lora",
        "layers": list(params.edited_layers),
        "num_steps": params.epochs,
        "lr": params.lr,
        "weight_decay": 0.0,
        "kl_factor": 0.0,
        "norm_constraint": False,
        "target_modules": list(targets),
        "rank": params.rank,
        "lora_alpha": params.alpha,
        "lora_dropout": params.dropout,
    }
    return EasyEditParams("LoRA", hparams, optional | {"batch_size": 1}, one_by_one=True)


def _ultraedit(
    params: UltraEditParams, model: LoadedModel, facts: int, optional: dict[str, Any]
) -> EasyEditParams:
    """All facts in one step, each in a forward pass of its own, so that nothing is padded."""
    if facts > params.facts_per_step:
        raise EditError(
            f"ultraedit: facts_per_step is {params.facts_per_step}, and EasyEdit takes all {facts} "
            f"facts of an edit in one step; set it to {facts} or more"
        )
    weights = [model.layout.weight(layer, part) for layer, part in params.weights()]
    name = model_folder_name(model)
    hparams = {
        "model_class": "AutoModelForCausalLM",
        "tokenizer_class": "AutoTokenizer",
        "tokenizer_name": name,
        "inner_params": [weight.removesuffix(".weight") for weight in weights],
        "dropout": 0.0,
        "no_grad_layers": None,
        "batch_size": facts,
        "batch_size_once": 1,
        "editor_batch_size": 1024,
        "lr": params.lr,
        "token": "mask",
        "silent": True,
        "results_dir": "results",
    }
    return EasyEditParams("ULTRAEDIT", hparams, optional | {"half": False}, tuple(weights))


def _grace(params: GraceParams, model: LoadedModel, optional: dict[str, Any]) -> EasyEditParams:
    """One fact after another in the same codebook."""
    _check_fixed("grace", params, {"labels": "easyedit"})
    hparams = {
        "edit_lr": params.lr,
        "n_iter": params.steps,
        "eps": params.epsilon,
        "dist_fn": "euc",
        "val_init": "cold" if params.start == "uniform" else "warm",
        "val_train": "sgd",
        "val_reg": "None",
        "reg": "early_stop",
        "replacement": f"replace_{params.replaced}",
        "eps_expand": "coverage",
        "num_pert": 8,
        "dropout": 0.0,
        "inner_params": [_bracketed(model, params.layer)],
    }
    module = model.layout.weight(params.layer).removesuffix(".weight")
    return EasyEditParams(
        "GRACE", hparams, optional | {"batch_size": 1}, module=module, one_by_one=True
    )


def _wise(params: WiseParams, model: LoadedModel, optional: dict[str, Any]) -> EasyEditParams:
    """One fact after another in the same side memory."""
    fixed = {
        "unit": "distance",
        "measured": "row",
        "threshold": "contexts",
        "append_eos": False,
        "activation": None,
        "decayed": "all",
        "divisor": "tokens+1",
        "padding": "counted",
        "long_prompts": "max",
        "batch_size": 1,
        "contexts": None,
        "unrelated": 1,
        "weight_decay": 1e-5,
    }
    _check_fixed("wise", params, fixed)
    if params.save_freq is None or model.layout.transposed:
        what = "save_freq is None" if params.save_freq is None else "its weights are (in, out)"
        raise EditError(f"wise on {model.name}: {what}, which EasyEdit cannot compute")
    hparams = {
        "edit_lr": params.lr,
        "n_iter": params.steps,
        "objective_optimization": "only_label",
        "mask_ratio": params.mask_ratio,
        "alpha": params.alpha,
        "beta": params.beta,
        "gamma": params.gamma,
        "act_ratio": params.act_ratio,
        "merge_freq": params.merge_freq or params.save_freq,
        "retrieve": True,
        "replay": False,
        "save_freq": params.save_freq,
        "merge_alg": "ties",
        "norm_constraint": False if params.limit is None else float(params.limit),
        "weights": 1.0,
        "densities": params.density,
        "inner_params": [_bracketed(model, params.layer)],
    }
    module = model.layout.weight(params.layer).removesuffix(".weight")
    return EasyEditParams(
        "WISE", hparams, optional | {"batch_size": 1}, module=module, one_by_one=True
    )


def _bracketed(model: LoadedModel, layer: int) -> str:
    """Path of a weight as an expression."""
    return f"{model.layout.layers}[{layer}].{model.layout.mlp_out}.weight"


def _check_fixed(group: str, params: Any, fixed: Mapping[str, Any]) -> None:
    """Check the values that are fixed in EasyEdit's code.

    Raises:
        EditError: Some are others; the message names all of them.
    """
    others = [name for name, value in fixed.items() if getattr(params, name) != value]
    if others:
        ours = ", ".join(f"{name} is {getattr(params, name)}" for name in others)
        theirs = ", ".join(str(fixed[name]) for name in others)
        raise EditError(
            f"{group}: {ours}; in EasyEdit it is always {theirs}; set that under params in a recipe"
        )


def _statistics() -> dict[str, Any]:
    return {
        "mom2_dataset": "wikipedia",
        "mom2_n_samples": SAMPLES,
        "mom2_dtype": "float32",
        "stats_dir": STATISTICS,
    }


def _modules(model: LoadedModel, method: str) -> dict[str, Any]:
    """EasyEdit's templates of module names."""
    layout, layer = model.layout, f"{model.layout.layers}.{{}}"
    mlp, attention = (
        f"{layer}.{path if method == 'pmet' else path.rpartition('.')[0] or path}"
        for path in (layout.mlp_out, layout.attn_out)
    )
    weights = dict(model.model.named_parameters())
    head = layout.head
    if f"{head}.weight" not in weights:  # tied: EasyEdit finds it as the embeddings only
        embeddings = model.model.get_input_embeddings()
        head = next(name for name, part in model.model.named_modules() if part is embeddings)
    return {
        "rewrite_module_tmp": f"{layer}.{layout.mlp_out}",
        "layer_module_tmp": layer,
        "mlp_module_tmp": mlp,
        "attn_module_tmp": attention,
        "ln_f_module": layout.norm,
        "lm_head_module": head,
    }
