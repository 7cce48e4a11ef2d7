import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {key: citation[key] for key in ("version", "license")} == {key: project[key] for key in ("version", "license")}
