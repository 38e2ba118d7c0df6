"""Methods of a checkout of EasyEdit, for `fake_easyedit`: what they leave, without the math.

Names of modules, classes, attributes and globals are those that the driver reads. The numbers are
easy to predict.
"""

COMMON_FIELDS = """
    layers: Any
    layer_selection: Any
    fact_token: Any
    v_num_grad_steps: Any
    v_lr: Any
    v_loss_layer: Any
    v_weight_decay: Any
    clamp_norm_factor: Any
    kl_factor: Any
    mom2_adjustment: Any
    mom2_update_weight: Any
    rewrite_module_tmp: Any
    layer_module_tmp: Any
    mlp_module_tmp: Any
    attn_module_tmp: Any
    ln_f_module: Any
    lm_head_module: Any
    mom2_dataset: Any
    mom2_n_samples: Any
    mom2_dtype: Any
    alg_name: Any
    device: Any
    model_name: Any
    stats_dir: Any
"""

ALPHAEDIT = f"""
import os
from dataclasses import dataclass
from typing import Any

import torch

CONTEXT_TEMPLATES_CACHE = None
P_loaded = False
cache_c_new = False

@dataclass
class AlphaEditHyperParams:
{COMMON_FIELDS}
    nullspace_threshold: Any
    L2: Any
    P_loc: Any

def apply_AlphaEdit_to_model(model, tok, requests, hparams, **kwargs):
    global P, P_loaded, cache_c, cache_c_new
    assert len(CONTEXT_TEMPLATES_CACHE[0]) == 1
    if not os.path.exists(hparams.P_loc):
        print("computing the projection")
        P, P_loaded = torch.tensor(hparams.nullspace_threshold), True
        torch.save(P, "null_space_project.pt")
    elif not P_loaded:
        P, P_loaded = torch.load(hparams.P_loc) + 1, True  # to tell it from a computed one
    if not cache_c_new:
        cache_c, cache_c_new = 0, True
    weights = dict(model.named_parameters())
    for layer in hparams.layers:
        with torch.no_grad():
            weights[hparams.rewrite_module_tmp.format(layer) + ".weight"] += P + 100 * cache_c
    cache_c += len(requests)
    return model, {{}}
"""

PMET = f"""
from dataclasses import dataclass
from typing import Any

import torch

CONTEXT_TEMPLATES_CACHE = None

@dataclass
class PMETHyperParams:
{COMMON_FIELDS}
    nll_loss_factor: Any
    rewrite_module_tmps: Any

def apply_pmet_to_model(model, tok, requests, hparams, **kwargs):
    [template] = hparams.rewrite_module_tmps
    assert tok.padding_side == "right"
    names = [part.format(0) for part in (hparams.mlp_module_tmp, hparams.attn_module_tmp)]
    assert all(isinstance(model.get_submodule(name), torch.nn.Linear) for name in names)
    for layer in hparams.layers:
        with torch.no_grad():
            model.get_submodule(template.format(layer)).weight += hparams.nll_loss_factor
    return model, {{}}
"""

LORA = """
from dataclasses import dataclass
from typing import Any

import torch
from a_package_for_images.adapters import get_adapted_model

@dataclass
class LoRAHyperParams:
    lora_type: Any
    layers: Any
    num_steps: Any
    lr: Any
    weight_decay: Any
    kl_factor: Any
    norm_constraint: Any
    target_modules: Any
    rank: Any
    lora_alpha: Any
    lora_dropout: Any
    device: Any
    alg_name: Any
    model_name: Any
    batch_size: int = 128

class Adapter(torch.nn.Module):
    def __init__(self, layer, hparams):
        super().__init__()
        rows, columns = layer.weight.shape
        self.base_layer, self.scaling = layer, {"default": hparams.lora_alpha / hparams.rank}
        one, other = torch.zeros(hparams.rank, columns), torch.zeros(rows, hparams.rank)
        self.lora_A, self.lora_B = torch.nn.ModuleDict(), torch.nn.ModuleDict()
        for factors, start in ((self.lora_A, one), (self.lora_B, other)):
            factors["default"] = torch.nn.Linear(1, 1, bias=False)
            factors["default"].weight = torch.nn.Parameter(start)

    def forward(self, inputs):
        return self.base_layer(inputs) + self.scaling["default"] * self.lora_B["default"](
            self.lora_A["default"](inputs)
        )

def apply_lora_to_model(model, tok, requests, hparams, keep_original_weight=False, **kwargs):
    [request] = requests
    assert hparams.lora_type == "lora" and hparams.batch_size == 1
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.requires_grad_(False)
    if keep_original_weight or not hasattr(model, "peft_config"):
        model.peft_config = {"default": hparams}
        for name, module in list(model.named_modules()):
            parts = name.split(".")
            if parts[-1] in hparams.target_modules and int(parts[2]) in hparams.layers:
                parent = model.get_submodule(name.rpartition(".")[0])
                setattr(parent, parts[-1], Adapter(module, hparams))
    for module in model.modules():
        if isinstance(module, Adapter):
            with torch.no_grad():
                module.lora_A["default"].weight += 1
                module.lora_B["default"].weight += len(request["target_new"])
    assert model(input_ids=torch.tensor([[1, 2]])).logits.requires_grad
    return model, {}
"""

ULTRAEDIT = """
from dataclasses import dataclass
from typing import Any

import torch

@dataclass
class UltraEditHyperParams:
    model_class: Any
    tokenizer_class: Any
    tokenizer_name: Any
    inner_params: Any
    device: Any
    dropout: Any
    no_grad_layers: Any
    batch_size: Any
    lr: Any
    token: Any
    batch_size_once: Any
    editor_batch_size: Any
    silent: Any
    alg_name: Any
    model_name: Any
    results_dir: Any
    half: bool = False

class ULTRAEDIT:
    def __init__(self, model, config):
        self.model, self.config = model, config

    def predict_param_shifts(self, requests):
        found = {}
        for name in self.config.inner_params:
            rows, columns = self.model.get_submodule(name).weight.shape
            found[name] = torch.arange(columns)[:, None] * torch.ones(rows) * self.config.lr
            found[name] *= len(requests)
        return found

    def edit_model(self, shifts):
        for name, shift in shifts.items():
            self.model.get_submodule(name).weight.data += shift.T

class UltraEditRewriteExecutor:
    def apply_to_model(self, model, tok, requests, hparams, **kwargs):
        assert len(requests) == hparams.batch_size and hparams.batch_size_once == 1
        editor = ULTRAEDIT(model, hparams)
        editor.edit_model(editor.predict_param_shifts(requests))
        return model, {}

apply_ultraedit = UltraEditRewriteExecutor().apply_to_model
"""

GRACE = """
import copy
from dataclasses import dataclass
from typing import Any

import torch

@dataclass
class GraceHyperParams:
    edit_lr: Any
    n_iter: Any
    eps: Any
    dist_fn: Any
    val_init: Any
    val_train: Any
    val_reg: Any
    reg: Any
    replacement: Any
    eps_expand: Any
    num_pert: Any
    dropout: Any
    inner_params: Any
    device: Any
    alg_name: Any
    model_name: Any
    batch_size: int = 1

class GRACEAdapter(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.training, self.key_labels = layer, False, []

    def forward(self, inputs):
        out = self.layer(inputs)
        if not self.training:
            return out
        query = inputs[:, min(self.key_id, inputs.shape[1] - 1)].detach()
        if self.iter == 0:
            self.insert(query, torch.zeros(1, out.shape[-1]))
        self.values.requires_grad_()
        self.chosen_key = torch.cdist(self.keys, query).view(-1, 1).min(0).indices
        out[:, self.key_id] = self.values[self.chosen_key]
        return out

    def insert(self, query, value):
        eps, label = torch.tensor([self.eps]), self.edit_label.float().mean()
        if not self.key_labels:
            self.keys, self.epsilons, self.key_labels = query, eps, [label]
            self.values = torch.nn.Parameter(value)
            return
        distance, nearest = torch.cdist(self.keys, query).view(-1, 1).min(0)
        if distance <= self.epsilons[nearest] + self.eps and self.key_labels[-1 - nearest] == label:
            self.epsilons[nearest] = torch.maximum(self.epsilons[nearest], distance)
            return
        self.keys = torch.vstack([self.keys, query])
        self.values = torch.nn.Parameter(torch.vstack([self.values, value]))
        self.key_labels = self.key_labels + [label]
        if distance <= self.epsilons[nearest] + self.eps:
            self.epsilons[nearest], eps = distance / 2 - 1e-5, distance / 2
        self.epsilons = torch.cat([self.epsilons, eps])

def apply_grace_to_model(model, tok, requests, hparams, **kwargs):
    [request] = requests
    model.requires_grad_(False)
    path = hparams.inner_params[0].rpartition(".")[0]
    parent, _, name = path.rpartition(".")
    holder = eval(f"model.{parent}")
    if not isinstance(getattr(holder, name), GRACEAdapter):
        original = getattr(holder, name)
        setattr(holder, name, GRACEAdapter(original))
        copy.deepcopy(original)  # as EasyEdit, which keeps it to put it back
    adapter = getattr(holder, name)
    prompt = tok(request["prompt"], return_tensors="pt")["input_ids"]
    tokens = tok(request["prompt"] + " " + request["target_new"], return_tensors="pt")
    labels = tokens["input_ids"].clone()
    labels[:, : prompt.shape[1]] = -100
    adapter.key_id, adapter.edit_label = (labels == -100).sum() - 1, labels
    adapter.training, adapter.eps = True, hparams.eps
    for adapter.iter in range(hparams.n_iter):
        loss = model(**tokens, labels=labels).loss
        [grad] = torch.autograd.grad(loss, [adapter.values])
        assert grad[adapter.chosen_key].abs().sum() > 0
        with torch.no_grad():
            adapter.values[adapter.chosen_key] += hparams.edit_lr
    adapter.training = False
    if request["target_new"] == "Bern":
        adapter.epsilons = adapter.epsilons * 2
    return model, {}
"""

WISE_UTILS = """
CONTEXT_TEMPLATES_CACHE = None

def get_context_templates(model, tok):
    return CONTEXT_TEMPLATES_CACHE
"""

WISE = """
import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from .utils import get_context_templates

@dataclass
class WISEHyperParams:
    edit_lr: Any
    n_iter: Any
    objective_optimization: Any
    mask_ratio: Any
    alpha: Any
    beta: Any
    gamma: Any
    act_ratio: Any
    merge_freq: Any
    retrieve: Any
    replay: Any
    save_freq: Any
    merge_alg: Any
    norm_constraint: Any
    inner_params: Any
    weights: Any
    densities: Any
    device: Any
    alg_name: Any
    model_name: Any
    batch_size: int = 1

class WISEAdapter(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.weight = layer, layer.weight
        self.new_weight = copy.deepcopy(layer.weight)
        self.facts = 0
        self.editing_mean_act = SimpleNamespace(min_act=lambda: 9.0 - self.facts)

    def forward(self, inputs):
        return torch.nn.functional.linear(inputs, self.new_weight)

def apply_wise_to_model(model, tok, requests, hparams, **kwargs):
    [request] = requests
    templates = get_context_templates(model, tok)
    assert templates[0] == "{}" and all(isinstance(one, str) for one in templates)
    assert tok.padding_side == "left" and hparams.sequential_edit
    model.requires_grad_(False)
    parent, _, name = hparams.inner_params[0].rpartition(".")[0].rpartition(".")
    holder = eval(f"model.{parent}")
    if not isinstance(getattr(holder, name), WISEAdapter):
        setattr(holder, name, WISEAdapter(getattr(holder, name)))
    adapter = getattr(holder, name)
    with torch.no_grad():
        adapter.new_weight += len(request["loc_prompt"])
    adapter.facts += 1
    return model, {}
"""

METHODS = {
    "AlphaEdit": ("alphaedit.AlphaEdit_main", "apply_AlphaEdit_to_model", ALPHAEDIT),
    "PMET": ("pmet.pmet_main", "apply_pmet_to_model", PMET),
    "LoRA": ("lora.lora_main", "apply_lora_to_model", LORA),
    "ULTRAEDIT": ("ultraedit.ultraedit_main", "apply_ultraedit", ULTRAEDIT),
    "GRACE": ("grace.grace_main", "apply_grace_to_model", GRACE),
    "WISE": ("wise.wise_main", "apply_wise_to_model", WISE),
}
"""EasyEdit's name of a method to its module, function and source."""
HYPERPARAMS = {"ULTRAEDIT": "UltraEditHyperParams", "GRACE": "GraceHyperParams"}
"""Classes whose name is not that of the method."""
