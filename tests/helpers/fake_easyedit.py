"""A package in the place of EasyEdit: the same names, and changes that are easy to predict.

The real driver imports it in a process of its own, so everything but EasyEdit's mathematics is as
in use: its class names, its device names, its globals, and imports of packages that are missing.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from helpers.fake_easyedit_methods import COMMON_FIELDS, HYPERPARAMS, METHODS, WISE_UTILS

_FILES = {
    "__init__.py": """
        import a_package_for_images
        from a_package_for_images.training import Trainer, decorated
        from transformers import a_name_of_another_version

        from .editors.editor import BaseEditor
        from .models.ft.ft_main import FTHyperParams
        from .models.memit.memit_main import MEMITHyperParams
        from .models.rome.rome_main import ROMEHyperParams

        class OwnTrainer(Trainer):
            model: Trainer | None = None

            @decorated
            def run(self):
                return a_package_for_images.run()
        """,
    "editors/__init__.py": "",
    "editors/editor.py": """
        from ..util.alg_dict import ALG_DICT

        class BaseEditor:
            @classmethod
            def from_hparams(cls, hparams):
                return cls(hparams)

            def __init__(self, hparams):
                self.model_name, self.hparams = hparams.model_name, hparams
                self.apply_algo = ALG_DICT[hparams.alg_name]
                self.model, self.tok = hparams.model_name
                self.model.to(f"cuda:{hparams.device}")
        """,
    "util/__init__.py": "",
    "util/alg_dict.py": """
        from ..models.ft.ft_main import apply_ft_to_model
        from ..models.memit.memit_main import apply_memit_to_model
        from ..models.rome.rome_main import apply_rome_to_model

        ALG_DICT = {
            "FT": apply_ft_to_model,
            "MEMIT": apply_memit_to_model,
            "ROME": apply_rome_to_model,
        }
        """,
    "models/__init__.py": "",
    "models/ft/__init__.py": "",
    "models/ft/ft_main.py": """
        import os
        import time
        from dataclasses import dataclass
        from typing import Any

        import torch

        @dataclass
        class FTHyperParams:
            layers: Any
            num_steps: Any
            lr: Any
            weight_decay: Any
            kl_factor: Any
            norm_constraint: Any
            objective_optimization: Any
            rewrite_module_tmp: Any
            layer_module_tmp: Any
            mlp_module_tmp: Any
            attn_module_tmp: Any
            ln_f_module: Any
            lm_head_module: Any
            device: Any
            alg_name: Any
            model_name: Any
            batch_size: int = 64

        def apply_ft_to_model(model, tok, requests, hparams, **kwargs):
            print("training", [request["target_new"] for request in requests])
            if requests[0]["target_new"] == "die":
                os._exit(9)
            if requests[0]["target_new"] == "sleep":
                time.sleep(600)
            name = hparams.rewrite_module_tmp.format(hparams.layers[0]) + ".weight"
            weight = dict(model.named_parameters())[name]
            with torch.no_grad():
                step = torch.full((1,), hparams.lr * len(requests), device=f"cuda:{hparams.device}")
                weight += step * hparams.batch_size
            return model, {}
        """,
    "models/memit/__init__.py": "",
    "models/memit/memit_main.py": """
        from dataclasses import dataclass
        from pathlib import Path
        from typing import Any

        import numpy
        import torch

        CONTEXT_TEMPLATES_CACHE = None

        @dataclass
        class MEMITHyperParams:
            FIELDS

        def apply_memit_to_model(model, tok, requests, hparams, **kwargs):
            [bare], prefixed = CONTEXT_TEMPLATES_CACHE
            assert bare == "{}" and all(text.endswith("{}") for text in prefixed)
            weights = dict(model.named_parameters())
            for layer in hparams.layers:
                module = hparams.rewrite_module_tmp.format(layer)
                file = Path(hparams.stats_dir, model.config._name_or_path, "wikipedia_stats")
                file /= f"{module}_{hparams.mom2_dtype}_mom2_{hparams.mom2_n_samples}.npz"
                found = numpy.load(file)
                assert found["sample_size"] == hparams.mom2_n_samples
                moment = torch.from_numpy(found["mom2.mom2"]) / int(found["mom2.count"])
                with torch.no_grad():  # every row: the moment's diagonal
                    weights[module + ".weight"] += moment.diagonal() * len(prefixed)
            return model, {}
        """,
    "models/rome/__init__.py": "",
    "models/rome/rome_main.py": """
        from dataclasses import dataclass
        from typing import Any

        import torch
        from a_package_for_images import solve

        CONTEXT_TEMPLATES_CACHE = None

        @dataclass
        class ROMEHyperParams:
            layers: Any
            fact_token: Any
            v_num_grad_steps: Any
            v_lr: Any
            v_loss_layer: Any
            v_weight_decay: Any
            clamp_norm_factor: Any
            kl_factor: Any
            mom2_adjustment: Any
            context_template_length_params: Any
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

        def apply_rome_to_model(model, tok, requests, hparams, **kwargs):
            [request] = requests
            assert isinstance(CONTEXT_TEMPLATES_CACHE[1], str)
            name = hparams.rewrite_module_tmp.format(hparams.layers[0]) + ".weight"
            weight = dict(model.named_parameters())[name]
            with torch.no_grad():
                weight *= 2
            if request["target_new"] == "Rome":
                print("z error tensor(1.)")
                print("=====")
                assert False or print("no solution for Rome")
            if request["target_new"] == "Bern":
                print("no line " * 1000)
                raise ValueError(("size mismatch" + chr(10)) * 1000)
            if request["target_new"] == "Oslo":
                solve(weight)
            return model, {}
        """,
}


def fake_checkout(folder: Path, *, complete: bool = False) -> Path:
    """Write the package; the folder to give as `EASYEDIT_HOME`.

    Args:
        folder: Where to write.
        complete: Whether it has the methods of today's EasyEdit; otherwise FT, MEMIT and ROME.
    """
    files = {name: textwrap.dedent(text) for name, text in _FILES.items()}
    memit = "models/memit/memit_main.py"
    files[memit] = files[memit].replace("    FIELDS\n", COMMON_FIELDS)
    for method, (module, function, source) in METHODS.items() if complete else ():
        path = f"models/{module.replace('.', '/')}.py"
        files |= {f"models/{module.partition('.')[0]}/__init__.py": "", path: source}
        cls = HYPERPARAMS.get(method, f"{method}HyperParams")
        files["__init__.py"] += f"from .models.{module} import {cls}\n"
        files["util/alg_dict.py"] += (
            f"from ..models.{module} import {function}\nALG_DICT['{method}'] = {function}\n"
        )
    if complete:
        files["models/wise/utils.py"] = WISE_UTILS
    for name, text in files.items():
        file = folder / "easyeditor" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.lstrip(), encoding="utf-8")
    return folder
