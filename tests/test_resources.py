"""Where systems and force fields are looked for."""

import os

import pytest

from scoremd import resources
from scoremd.errors import ScoreMDError


@pytest.fixture(autouse=True)
def no_path(monkeypatch):
    monkeypatch.delenv(resources.PATH_VARIABLE, raising=False)


def test_packaged_folders_exist():
    assert (resources.packaged("systems") / "alanine-dipeptide.yaml").is_file()
    assert resources.folders("systems") == [resources.packaged("systems")]


@pytest.mark.parametrize("kind", ["systems", "force_fields"])
def test_installed_package_comes_before_its_neighbour(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "scoremd" / "resources.py"))
    (tmp_path / kind).mkdir()
    assert resources.packaged(kind) == tmp_path / kind
    (tmp_path / "scoremd" / f"{kind}_data").mkdir(parents=True)
    assert resources.packaged(kind) == tmp_path / "scoremd" / f"{kind}_data"


def test_order_of_precedence(tmp_path, monkeypatch):
    given, first, second = (tmp_path / name for name in ("given", "first", "second"))
    for folder in (given, first / "systems", second / "systems", given / "systems", second / "force_fields"):
        folder.mkdir(parents=True)
    monkeypatch.setenv(resources.PATH_VARIABLE, os.pathsep.join(map(str, [first, tmp_path / "none", second, ""])))
    packaged = resources.packaged("systems")
    expected = [given, given / "systems", first / "systems", second / "systems", packaged]
    assert resources.folders("systems", [given]) == expected
    assert resources.folders("systems", str(given)) == expected
    assert resources.folders("systems") == expected[2:]
    assert resources.folders("force_fields")[0] == second / "force_fields"


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ScoreMDError, match="none: no such folder"):
        resources.folders("systems", [tmp_path / "none"])
    (tmp_path / "file").touch()
    with pytest.raises(ScoreMDError, match="file: no such folder"):
        resources.folders("systems", [tmp_path / "file"])
