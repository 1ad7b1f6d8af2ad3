"""Compiled XLA programs, shared by the daemons of one test run: the same few models are compiled a hundred times.

Every program is still compiled once a run. TensorFlow files it by its HLO, which holds counters of the process. The
tests' own processes take no part: they would rarely find a program. They compile as a daemon with one update per sample
does, which takes a third less time than by XLA's own defaults.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_FLAGS = "TF_XLA_FLAGS"
_OPTIONS = "XLA_FLAGS"
_FOLDER = "LEARND_TEST_COMPILED"
_QUIET = "TF_CPP_MIN_LOG_LEVEL"
WITHOUT = {_FLAGS: ""}
"""The environment of a daemon that is to compile everything by itself."""


def make() -> tempfile.TemporaryDirectory[str] | None:
    """The folder, for all that this process starts; None where whoever started this one has made it."""
    if _FOLDER in os.environ:
        return None
    made = tempfile.TemporaryDirectory(prefix="learnd-compiled-")
    os.environ[_FOLDER] = made.name
    os.environ[_QUIET] = "3"  # TensorFlow reads it when it is imported
    return made


def compile_alarms() -> None:
    """Have Numba compile the loops of the alarms once, before the workers and their daemons would, each for itself."""
    command = "from learnd.alarms.monitor import compile_heads; compile_heads()"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=Path(__file__).parents[2])


def share() -> None:
    """Have the processes that are started from now on look there before they compile."""
    if "tensorflow" in sys.modules:  # else nothing here compiles, and seconds of importing it are saved
        _read_flags()
    os.environ.pop(_QUIET, None)  # daemons are to be as quiet as they are by themselves
    options = f"--tf_xla_persistent_cache_directory={os.environ[_FOLDER]} --tf_xla_persistent_cache_device_types=CPU"
    os.environ[_FLAGS] = f"{os.environ.get(_FLAGS, '')} {options}".strip()


def _read_flags() -> None:
    """TensorFlow reads them once, when it compiles for the first time: before those for daemons are set."""
    import tensorflow as tf  # noqa: PLC0415 - see share

    from learnd.wiring.learner import xla_flags  # noqa: PLC0415 - TensorFlow

    before = os.environ.get(_OPTIONS)
    os.environ[_OPTIONS] = xla_flags(before or "", one_kernel=True)
    tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()
    os.environ.pop(_OPTIONS)
    if before is not None:
        os.environ[_OPTIONS] = before
