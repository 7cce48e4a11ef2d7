"""Models on disk: a folder with `model.safetensors` and `config.yaml`, nothing that executes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.files import replacing, write_text
from scoremd.nn.energy import MoleculeEnergy
from scoremd.yaml_files import first_fault, read_yaml

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"


def tensors_of(experts: Sequence[MoleculeEnergy]) -> dict[str, Tensor]:
    """All weights and statistics by name, those of expert k below "k."."""
    return {f"{k}.{name}": t.contiguous() for k, expert in enumerate(experts) for name, t in expert.state_dict().items()}


def config_text(description: ModelDescription) -> str:
    """The description as YAML."""
    return yaml.safe_dump(description.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def model_hash(description: ModelDescription, experts: Sequence[MoleculeEnergy]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of weights and description."""
    digest = hashlib.sha256(save(tensors_of(experts)))
    shown = description.model_dump(mode="json", exclude={"trained"})
    digest.update(json.dumps(shown, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def save_model(folder: Path, description: ModelDescription, experts: Sequence[MoleculeEnergy]) -> None:
    """Write weights and description into a folder that exists."""
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors_of(experts)))
    write_text(folder / CONFIG, config_text(description))


def read_description(folder: Path) -> ModelDescription:
    """Read a model's config.yaml.

    Raises
    ------
    ScoreMDError
        If the folder is not a model of ours.
    """
    try:
        return ModelDescription.model_validate(read_yaml(folder / CONFIG))
    except OSError as error:
        raise ScoreMDError(f"{folder}: is not a ScoreMD model ({CONFIG}: {error.strerror})") from None
    except ValidationError as error:
        raise ScoreMDError(f"{folder / CONFIG}: not a ScoreMD model ({first_fault(error)})") from None


def load_model(folder: Path) -> tuple[ModelDescription, list[MoleculeEnergy]]:
    """Read a model.

    Raises
    ------
    ScoreMDError
        If the folder is not a model of ours, or is damaged.
    """
    description = read_description(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ScoreMDError(f"{folder / WEIGHTS}: cannot be read as safetensors ({error})") from None
    return description, networks_from(description, tensors, str(folder / WEIGHTS))


def networks_from(description: ModelDescription, tensors: dict[str, Tensor], source: str) -> list[MoleculeEnergy]:
    """Networks of a description with the given weights.

    Raises
    ------
    ScoreMDError
        If the weights do not fit the description, or are not finite; `source` says where they came from.
    """
    experts = []
    for k in range(len(description.time_ranges)):
        network = description.make_network()
        prefix = f"{k}."
        mine = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        try:
            network.load_state_dict(mine)
        except RuntimeError as error:
            raise ScoreMDError(f"{source}: does not fit its {CONFIG} ({str(error).splitlines()[-1].strip()})") from None
        if not all(bool(torch.isfinite(t).all()) for t in mine.values()):
            raise ScoreMDError(f"{source}: holds weights that are not finite")
        experts.append(network.requires_grad_(requires_grad=False).eval())
    return experts
