"""Configuration of a training run: the YAML file that `scoremd train` reads."""

import os
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scoremd.description import check_time_ranges
from scoremd.errors import ScoreMDError
from scoremd.nn.energy import NetworkConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FokkerPlanckConfig(_Section):
    """The consistency term.

    Attributes
    ----------
    weight : alpha, its factor in the loss; 0 turns it off
    fraction : number of its samples in units of the batch, in addition to the denoising samples; each costs D + 1 scores
    log_snr : range of ln(alpha / sigma) that its samples are spread over; 3 is a noise of 0.05, beyond which the network is frozen
    """

    weight: float = Field(0.0, ge=0)
    fraction: float = Field(0.05, gt=0, le=1)
    log_snr: tuple[float, float] = (-1.0, 3.0)


class TrainingConfig(_Section):
    """Everything that fixes a training run.

    Attributes
    ----------
    name, title : of the model
    system : name of the system
    data : ensemble in the format of `scoremd.data`; relative to the configuration file
    output : folder of the trained model; relative to the configuration file
    length_scale : 1/nm, chosen so that scaled coordinates have a variance of order one
    use_forces : mix the force labels into the target
    time_ranges : of each expert, the least noisy first; experts are trained one after the other, `steps` each
    steps, batch, learning_rate : Adam with one warm-up and cosine decay
    average : the weights that are kept are an exponential average over about 1 / (1 - average) steps
    seed, threads : of the run
    checkpoint_every : steps
    """

    name: str
    title: str
    system: str
    data: Path
    output: Path
    length_scale: float = Field(6.0, gt=0)
    schedule: Literal["vp", "ve"] = "vp"
    use_forces: bool = True
    network: NetworkConfig = NetworkConfig()
    fokker_planck: FokkerPlanckConfig = FokkerPlanckConfig()
    time_ranges: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    steps: int = Field(ge=1)
    batch: int = Field(256, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    average: float = Field(0.999, gt=0, lt=1)
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    checkpoint_every: int = Field(1000, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_time_ranges(self.time_ranges)
        if self.fokker_planck.log_snr[0] >= self.fokker_planck.log_snr[1]:
            raise ValueError(f"fokker_planck.log_snr must rise, not {list(self.fokker_planck.log_snr)}")
        if self.network.achiral:
            raise ValueError("network.achiral is a property of the system, and set there")
        return self


def read_config(path: str | os.PathLike[str]) -> TrainingConfig:
    """Read a training configuration; relative paths in it are taken from its folder.

    Raises
    ------
    ScoreMDError
        If the file is missing, is not YAML, or a key is missing, unknown or of a wrong value.
    """
    path = Path(path)
    try:
        config = TrainingConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScoreMDError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ScoreMDError(f"{path}: {place}: {first['msg']}" if place else f"{path}: {first['msg']}") from None
    folder = path.resolve().parent
    return config.model_copy(update={"data": folder / config.data, "output": folder / config.output})
