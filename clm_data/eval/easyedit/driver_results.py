"""The last part of the driver: reading what a method left behind. Stands alone, as `driver.py`.

Most methods change weights; UltraEdit's change is taken before it is rounded into them. LoRA leaves
an adapter, GRACE a layer with a codebook, and WISE one with a second weight.
"""

from __future__ import annotations

from typing import Any


class Weights:
    """The change of each weight, after minus before."""

    kind = "weights"

    def __init__(self, model: Any, request: dict[str, Any], apply: Any) -> None:
        self.weights = {name: model.get_parameter(name) for name in request["weights"]}
        self.before = {name: one.detach().clone() for name, one in self.weights.items()}

    def read_call(self) -> None:
        """Read what one call of the method left."""

    def tensors(self) -> dict[str, Any]:
        """What is sent back, by name."""
        return {
            name: (weight.detach().double() - self.before[name].double()).float()
            for name, weight in self.weights.items()
        }

    def about(self) -> dict[str, Any]:
        """What is sent back besides tensors."""
        return {}

    def close(self) -> None:
        """Undo what was done to EasyEdit's classes."""


class Shifts(Weights):
    """UltraEdit's changes before they are added: far smaller than the weights' rounding."""

    def __init__(self, model: Any, request: dict[str, Any], apply: Any) -> None:
        import sys

        super().__init__(model, request, apply)
        self.model = model
        self.shifts: dict[str, Any] = {}
        self.cls = sys.modules[apply.__module__].ULTRAEDIT
        self.predict = predict = self.cls.predict_param_shifts

        def recorded(algorithm: Any, *args: Any) -> Any:
            found = predict(algorithm, *args)
            for name, shift in found.items():
                change = self.stored(name, shift)
                old = self.shifts.get(name + ".weight")
                self.shifts[name + ".weight"] = change if old is None else old + change
            return found

        self.cls.predict_param_shifts = recorded

    def stored(self, module: str, shift: Any) -> Any:
        """A change (in, out) in the orientation of the module's weight."""
        import torch

        linear = isinstance(self.model.get_submodule(module), torch.nn.Linear)
        return (shift.T if linear else shift).detach().float()

    def tensors(self) -> dict[str, Any]:
        """The changes, added up over the calls."""
        return self.shifts

    def close(self) -> None:
        """Put the method of EasyEdit's class back."""
        self.cls.predict_param_shifts = self.predict


class Factors(Weights):
    """LoRA's factors: A (r, in), and B (out, r) times the scale."""

    kind = "factors"

    def __init__(self, model: Any, request: dict[str, Any], apply: Any) -> None:
        self.model, self.before = model, factors(model)

    def tensors(self) -> dict[str, Any]:
        """Factors of the change: of an adapter that was there, the new product less the old."""
        import torch

        out = {}
        for name, (left, right) in factors(self.model).items():
            old = self.before.get(name)
            out[f"left:{name}"] = left if old is None else torch.cat([left, -old[0]], dim=1)
            out[f"right:{name}"] = right if old is None else torch.cat([right, old[1]])
        return out


def factors(model: Any) -> dict[str, tuple[Any, Any]]:
    """Scaled B and A of each adapted weight, copied."""
    return {
        f"{name}.weight": (
            module.lora_B["default"].weight.detach().float() * float(module.scaling["default"]),
            module.lora_A["default"].weight.detach().float().clone(),
        )
        for name, module in model.named_modules()
        if "default" in getattr(module, "lora_A", {})
    }


class Codebook(Weights):
    """GRACE's facts (the key and label of each) and the entries of its codebook."""

    kind = "codebook"

    def __init__(self, model: Any, request: dict[str, Any], apply: Any) -> None:
        self.model, self.path = model, request["module"]
        layer = model.get_submodule(self.path)
        self.inputs: list[Any] = []
        self.keys: list[Any] = []
        self.labels: list[str] = []
        inputs = self.inputs

        def first(_module: Any, args: tuple[Any, ...]) -> None:
            if not inputs:
                inputs.append(args[0].detach())

        # A function, not a method: GRACE copies the layer, and a method would copy the model.
        self.hook = getattr(layer, "layer", layer).register_forward_pre_hook(first)

    def read_call(self) -> None:
        """The fact of a call: the layer's input at its token."""
        adapter = self.model.get_submodule(self.path)
        [states] = self.inputs
        self.inputs.clear()
        self.keys.append(states[0, min(int(adapter.key_id), states.shape[1] - 1)])
        self.labels.append(repr(float(adapter.edit_label.float().mean())))

    def tensors(self) -> dict[str, Any]:
        """Keys by fact, and the entries of the whole codebook."""
        import torch

        adapter = self.model.get_submodule(self.path)
        found = {
            "keys": torch.stack(self.keys),
            "entries:keys": adapter.keys,
            "entries:values": adapter.values,
            "entries:radii": adapter.epsilons.reshape(-1),
        }
        return {name: tensor.detach().float() for name, tensor in found.items()}

    def about(self) -> dict[str, Any]:
        """The labels by fact."""
        return {"labels": self.labels}

    def close(self) -> None:
        """Stop reading the layer's inputs."""
        self.hook.remove()


class SideMemory(Weights):
    """The change of WISE's second weight, and the smallest distance of an edited fact so far."""

    kind = "side-memory"

    def __init__(self, model: Any, request: dict[str, Any], apply: Any) -> None:
        self.model, self.path = model, request["module"]
        layer = model.get_submodule(self.path)
        self.old = getattr(layer, "new_weight", layer.weight).detach().clone()

    def tensors(self) -> dict[str, Any]:
        """The change since the last edit."""
        adapter = self.model.get_submodule(self.path)
        return {"change": (adapter.new_weight.detach().double() - self.old.double()).float()}

    def about(self) -> dict[str, Any]:
        """The smallest distance."""
        adapter = self.model.get_submodule(self.path)
        return {"threshold": float(adapter.editing_mean_act.min_act())}


RESULTS = {"ULTRAEDIT": Shifts, "LoRA": Factors, "GRACE": Codebook, "WISE": SideMemory}
"""EasyEdit's name of a method to what reads its result; others change weights."""
