"""What a shipped model reaches, measured by a benchmark and kept beside its weights: `figures.json`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from scoremd.errors import ScoreMDError

FIGURES = "figures.json"


class Figures(BaseModel):
    """Excess Jensen–Shannon divergence in nats, over that of halves of the reference; means over molecules, or seeds of one.

    Attributes
    ----------
    model : hash of the model that was measured
    measured : on what, in words
    samples, simulation : against the reference
    between : samples against simulation
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str
    measured: str
    samples: float
    simulation: float
    between: float


def read_figures(folder: Path) -> Figures | None:
    """The figures of the model in a folder, None where there are none.

    Raises
    ------
    ScoreMDError
        If the file cannot be read or is not what a benchmark writes.
    """
    path = folder / FIGURES
    if not path.exists():
        return None
    try:
        return Figures.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise ScoreMDError(f"{path}: cannot be read as figures of a model ({str(error).splitlines()[0]})") from None
