"""The user's own classes, made known to Keras before a file is read."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import keras

from learnd.core.errors import ConfigError, Problem
from learnd.models.stored.graph_layer import GraphLayer
from learnd.models.stored.model import CODE, first_line, refuse

_UNKNOWN = re.compile(r"(?:Could not locate (?:class|function)|Unknown [a-z_ ]+:|Could not find) '?\"?([\w.>]+)")
_MODULE = re.compile(r"'module': '([\w.]+)'")


@contextmanager
def known(code: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Inside, Keras finds what the addresses in *code* hold; a class that it does not find is a `ConfigError`."""
    # Ours, so that an archive that was made from a SavedModel opens wherever this module is imported.
    objects = {"learnd>GraphLayer": GraphLayer, **custom_objects(code)}
    with keras.saving.custom_object_scope(objects):
        try:
            yield objects
        except ConfigError:
            raise
        except (TypeError, ValueError, ImportError) as error:
            _explain_unknown(error)
            raise


def custom_objects(code: Sequence[str]) -> dict[str, Any]:
    """Classes and functions by name: those named, or all that the named modules define.

    >>> sorted(custom_objects(["colorsys"]))[:2]
    ['hls_to_rgb', 'hsv_to_rgb']
    """
    objects: dict[str, Any] = {}
    for address in code:
        objects.update(_of_address(address))
    return objects


def _of_address(address: str) -> dict[str, Any]:
    module_name, _, name = address.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        problem = Problem(CODE, f"{module_name} cannot be imported: {first_line(error)} (Python looks in {_places()})")
        raise ConfigError(problem) from error
    if not name:
        return {key: value for key, value in vars(module).items() if _defined_in(module_name, key, value)}
    if not hasattr(module, name):
        refuse(f"{module_name} has no {name}", CODE)
    return {name: getattr(module, name)}


def _defined_in(module_name: str, key: str, value: Any) -> bool:
    ours = getattr(value, "__module__", None) == module_name
    return ours and not key.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))


def _explain_unknown(error: Exception) -> None:
    found = _UNKNOWN.search(str(error))
    if found is None:
        return
    name = found.group(1)
    modules = [module for module in _MODULE.findall(str(error)) if not module.startswith(("keras", "builtins"))]
    origin = f" (it was defined in {modules[0]})" if modules else ""
    message = (
        f"the file needs {name}{origin}, which Keras does not know; name the module that defines it here, as"
        f" package.module or package.module:{name.rpartition('>')[2]}"
    )
    raise ConfigError(Problem(CODE, message)) from error


def _places() -> str:
    return ", ".join(place or "the current folder" for place in sys.path[:2]) + ", ..."
