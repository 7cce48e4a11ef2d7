"""How benchmarks write what they measured."""

import json
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def _named(argument: str) -> str:
    """An argument without where on this machine a file lies; the scripts are in benchmarks."""
    if argument.endswith(".py"):
        return f"benchmarks/{Path(argument).name}"
    return Path(argument).name if "/" in argument else argument


def write_results(name: str, content: dict[str, Any]) -> Path:
    """Write a benchmark's numbers with the command, versions and date beside them to benchmarks/results."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "command": shlex.join(["python", *map(_named, sys.argv)]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {p: version(p) for p in ("scoremd", "torch", "openmm", "numpy")},
        "python": platform.python_version(),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(facts | content, indent=2) + "\n", encoding="utf-8")
    return path
