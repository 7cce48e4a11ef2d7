"""Options that the benchmarks of shipped models share."""

import argparse
import tempfile
from pathlib import Path


def emulation_parser(model: str, samples: int) -> argparse.ArgumentParser:
    """A parser of model, numbers of samples and replicas, their length, threads, and working folder, with defaults for `model`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=model)
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--ns", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / f"scoremd-{model}")
    return parser
