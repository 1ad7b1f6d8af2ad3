"""``learnd init``: a commented example configuration."""

import argparse
from importlib import resources

from learnd.core.errors import UsageError


def execute(options: argparse.Namespace) -> int:
    """Write the example configuration to a new file; return the exit code."""
    starter = resources.files("learnd.config").joinpath("starter.yaml").read_text(encoding="utf-8")
    try:
        with options.path.open("x", encoding="utf-8") as file:
            file.write(starter)
    except FileExistsError:
        raise UsageError(f"{options.path} exists; name another file, or remove it first") from None
    except OSError as error:
        raise UsageError(f"{options.path} cannot be written: {error.strerror}") from None
    print(f"wrote {options.path}; next: learnd run {options.path}")
    return 0
