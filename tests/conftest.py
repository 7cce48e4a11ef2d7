import shutil
from pathlib import Path

import pytest
import torch

from scoremd import compilation

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def as_written(request, monkeypatch):
    """Tests run functions as they are written: compiling takes longer than they do. Marked `compiled`, they are compiled."""
    torch.set_num_threads(1)
    if "compiled" not in request.keywords:
        monkeypatch.setattr(compilation, "compiler_available", lambda: False)


@pytest.fixture
def data():
    """Folder of the ensembles that are shipped for tests."""
    return DATA


@pytest.fixture
def data_copy(tmp_path):
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(DATA, tmp_path / "data"))
