"""Checkpoints of a training run: safetensors, replaced as a whole, the one before kept."""

import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scoremd.errors import ScoreMDError
from scoremd.files import replacing

_log = logging.getLogger("scoremd")


class RunState:
    """Everything that a run needs to go on bit for bit.

    Attributes
    ----------
    parameters, average : weights and their exponential average, by name
    optimizer : Adam of `parameters`
    generator : of all randomness, on the parameters' device
    step : steps done
    """

    def __init__(self, parameters: dict[str, Tensor], learning_rate: float, generator: torch.Generator) -> None:
        self.parameters = {name: torch.nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
        self.average = {name: p.detach().clone() for name, p in parameters.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), learning_rate, fused=True)
        self.generator = generator
        self.step = 0

    def save(self, path: Path, settings: str) -> None:
        """Write to `path`, moving what was there to `path` + ".previous"; `settings` identifies the run."""
        tensors = {"generator": self.generator.get_state()}
        for name, p in self.parameters.items():
            moments = self.optimizer.state[p]
            tensors |= {f"parameter/{name}": p.detach(), f"average/{name}": self.average[name]}
            tensors |= {f"{key}/{name}": moments[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        with replacing(path) as temporary:
            save_file(
                {k: v.contiguous() for k, v in tensors.items()},
                temporary,
                {"settings": settings, "step": str(self.step)},
            )
            if path.exists():
                path.replace(path.with_name(path.name + ".previous"))

    def restore(self, path: Path, settings: str) -> bool:
        """Continue from the newest readable checkpoint; False if there is none.

        Raises
        ------
        ScoreMDError
            If the checkpoint is of a run with other settings, or there are checkpoints but none can be read.
        """
        damaged = ""
        for candidate in (path, path.with_name(path.name + ".previous")):
            try:
                with safe_open(candidate, "pt") as file:
                    metadata = file.metadata() or {}
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            except FileNotFoundError:
                continue
            except (OSError, SafetensorError) as error:
                damaged = f"{candidate}: is not a checkpoint that can be read ({error})"
                _log.warning("%s", damaged)
                continue
            if metadata.get("settings") != settings:
                changed = _difference(metadata.get("settings", "{}"), settings)
                raise ScoreMDError(f"{candidate}: is of a run with other settings ({changed}); choose another output or remove it")
            self._load(tensors)
            self.step = int(metadata["step"])
            return True
        if damaged:
            raise ScoreMDError(f"{damaged}; remove it to start over")
        return False

    def _load(self, tensors: dict[str, Tensor]) -> None:
        self.generator.set_state(tensors["generator"])
        for name, p in self.parameters.items():
            p.data.copy_(tensors[f"parameter/{name}"])
            self.average[name].copy_(tensors[f"average/{name}"])
            self.optimizer.state[p] = {key: tensors[f"{key}/{name}"].to(p.device) for key in ("exp_avg", "exp_avg_sq", "step")}


def _difference(old: str, new: str) -> str:
    a, b = json.loads(old), json.loads(new)
    keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return ", ".join(keys)
