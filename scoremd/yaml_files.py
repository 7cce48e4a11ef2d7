"""Reading YAML that may be anyone's: data only, and one kind of error."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from scoremd.errors import ScoreMDError


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ScoreMDError
        If it is not text, or not valid YAML of plain data.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ScoreMDError(f"{path}: not a text file") from None
    # PyYAML lets through what its constructors of dates and numbers raise, and what deep nesting does
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ScoreMDError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


def first_fault(error: ValidationError) -> str:
    """What is wrong with the content of a file, and where in it: a key that is not known, if there is one, or the first of what was found.

    A key that is misspelt is missing, too, but that it is there in another spelling says more.
    """
    faults = error.errors()
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
