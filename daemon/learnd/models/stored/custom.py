"""Registration of the user's own classes with Keras while a file is read."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import keras

from learnd.core.errors import ConfigError, Problem
from learnd.models.stored.graph_layer import GraphLayer
from learnd.models.stored.model import CODE, first_line, refuse

_UNKNOWN = re.compile(r"(?:Could not locate (?:class|function)|Unknown [a-z_ ]+:|Could not find) '?\"?([\w.>]+)")
_MODULE = re.compile(r"'module': '([\w.]+)'")


@contextmanager
def custom_code(code: Sequence[str]) -> Iterator[None]:
    """Let Keras find the classes and functions at the addresses in *code* inside the ``with`` block.

    Raises
    ------
    ConfigError
        for a class that Keras needs and does not find, or an address that cannot be imported.
    """
    # GraphLayer is included so that an archive made from a SavedModel opens wherever this module is imported.
    objects = {"learnd>GraphLayer": GraphLayer, **custom_objects(code)}
    with keras.saving.custom_object_scope(objects):
        try:
            yield
        except ConfigError:
            raise
        except (TypeError, ValueError, ImportError) as error:
            _explain_unknown(error)
            raise


def custom_objects(code: Sequence[str]) -> dict[str, object]:
    """Return the classes and functions at the addresses in *code* by name.

    An address without a name stands for all that its module defines.

    >>> sorted(custom_objects(["colorsys"]))[:2]
    ['hls_to_rgb', 'hsv_to_rgb']
    """
    objects: dict[str, object] = {}
    for address in code:
        objects.update(_objects_at(address))
    return objects


def _objects_at(address: str) -> dict[str, object]:
    module_name, _, name = address.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        message = f"{module_name} cannot be imported: {first_line(error)} (Python looks in {_import_path()})"
        raise ConfigError(Problem(CODE, f"{message}; install it, or set PYTHONPATH")) from error
    if not name:
        return {key: value for key, value in vars(module).items() if _is_defined_in(module_name, key, value)}
    if not hasattr(module, name):
        refuse(f"{module_name} has no {name}", CODE)
    return {name: getattr(module, name)}


def _is_defined_in(module_name: str, key: str, value: object) -> bool:
    ours = getattr(value, "__module__", None) == module_name
    return ours and not key.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))


def _explain_unknown(error: Exception) -> None:
    """Raise a `ConfigError` that says how to name the missing code, if that is what *error* is about."""
    match = _UNKNOWN.search(str(error))
    if match is None:
        return
    name = match.group(1)
    modules = [module for module in _MODULE.findall(str(error)) if not module.startswith(("keras", "builtins"))]
    origin = f" (it was defined in {modules[0]})" if modules else ""
    message = (
        f"the file needs {name}{origin}, which Keras does not know; name the module that defines it here, as"
        f" package.module or package.module:{name.rpartition('>')[2]}"
    )
    raise ConfigError(Problem(CODE, message)) from error


def _import_path() -> str:
    return ", ".join(folder or "the current folder" for folder in sys.path[:2]) + ", ..."
