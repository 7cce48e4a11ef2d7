"""Checkpoints of a training run."""

import json
from pathlib import Path
from typing import Any

import torch
from pytorch_optimizer import SOAP
from torch import Tensor

from scoremd.errors import ScoreMDError
from scoremd.saved_state import read_state, save_state

#: Tensors that optimisers keep of each parameter.
_KEPT = ("exp_avg", "exp_avg_sq", "step")


class RunState:
    """Everything that a run needs to go on bit for bit.

    Attributes
    ----------
    parameters, average : weights and their exponential average, by name
    optimizer : of `parameters`, by name: Adam, or SOAP, which is Adam in the eigenbases of Shampoo's preconditioners (Vyas et al., arXiv
        2409.11321)
    generator : of all randomness, on the parameters' device
    step : steps done
    """

    def __init__(self, parameters: dict[str, Tensor], optimizer: str, learning_rate: float, generator: torch.Generator) -> None:
        self.parameters = {name: torch.nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
        self.average = {name: p.detach().clone() for name, p in parameters.items()}
        self.optimizer: torch.optim.Optimizer
        if optimizer == "soap":
            self.optimizer = SOAP(self.parameters.values(), learning_rate, weight_decay=0.0)
        else:
            self.optimizer = torch.optim.Adam(self.parameters.values(), learning_rate, fused=True)
        self.generator = generator
        self.step = 0

    def save(self, path: Path, settings: str) -> None:
        """Write to `path`, moving what was there to `path` + ".previous"; `settings` identifies the run."""
        tensors = {"generator": self.generator.get_state()}
        for name, p in self.parameters.items():
            tensors |= {f"parameter/{name}": p.detach(), f"average/{name}": self.average[name]}
            state = self.optimizer.state[p]
            for key, value in state.items():
                # laid out as it is read again: products of the same numbers in another order may round in other ways
                if isinstance(value, Tensor):
                    state[key] = tensors[f"{key}/{name}"] = value.contiguous()
                elif isinstance(value, list):
                    state[key] = [q.contiguous() if isinstance(q, Tensor) else q for q in value]
                    tensors |= {f"{key}.{axis}/{name}": q for axis, q in enumerate(state[key]) if isinstance(q, Tensor)}
        save_state(path, {"settings": settings, "step": str(self.step)}, tensors)

    def restore(self, path: Path, settings: str) -> bool:
        """Continue from the newest readable checkpoint; False if there is none.

        Raises
        ------
        ScoreMDError
            If the checkpoint is of a run with other settings, or there are checkpoints but none can be read.
        """
        saved = read_state(path)
        if saved is None:
            return False
        if saved.metadata.get("settings") != settings:
            changed = _difference(saved.metadata.get("settings", "{}"), settings)
            raise ScoreMDError(f"{saved.path}: is of a run with other settings ({changed}); choose another output or remove it")
        self.step = int(saved.metadata["step"])
        self._load(saved.tensors)
        return True

    def _load(self, tensors: dict[str, Tensor]) -> None:
        self.generator.set_state(tensors["generator"])
        group = self.optimizer.param_groups[0]
        if isinstance(self.optimizer, SOAP):
            group["step"] = self.step
        for name, p in self.parameters.items():
            p.data.copy_(tensors[f"parameter/{name}"])
            self.average[name].copy_(tensors[f"average/{name}"])
            state: dict[str, Any] = {key: tensors[f"{key}/{name}"].to(p.device) for key in _KEPT if f"{key}/{name}" in tensors}
            if isinstance(self.optimizer, SOAP):
                state |= {key: self._matrices(tensors, key, name, p) for key in ("GG", "Q")}
                state |= {"precondition_frequency": group["precondition_frequency"], "shampoo_beta": group["betas"][1]}
            self.optimizer.state[p] = state

    @staticmethod
    def _matrices(tensors: dict[str, Tensor], key: str, name: str, p: Tensor) -> list[Any]:
        """What SOAP has for each axis of a parameter: a matrix, or an empty list, as for a vector."""
        found = [tensors.get(f"{key}.{axis}/{name}") for axis in range(p.dim())]
        return [[] if q is None else q.to(p.device) for q in found]


def _difference(old: str, new: str) -> str:
    a, b = json.loads(old), json.loads(new)
    keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return ", ".join(keys)
