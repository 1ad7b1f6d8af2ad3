"""Component state (numbers, strings, lists, dicts, arrays) to bytes and back, exactly."""

from typing import Any

import msgspec
import numpy as np

from learnd.core.types import State

_ARRAY = "__array__"


def encode(state: State) -> bytes:
    """MessagePack, with arrays as dtype, shape and little-endian bytes.

    >>> decode(encode({"a": np.arange(3.0), "b": [1, "x", None]}))
    {'a': array([0., 1., 2.]), 'b': [1, 'x', None]}
    """
    return _ENCODER.encode(state)


def decode(data: bytes) -> State:
    """What `encode` was given. Arrays come back writable; tuples come back as lists."""
    restored: State = _revive(msgspec.msgpack.decode(data))
    return restored


def _hook(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype != object:
        flat = np.ascontiguousarray(value)
        return {_ARRAY: [flat.dtype.str, list(value.shape), flat.tobytes()]}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be part of a state")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_hook)


def _revive(value: Any) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            dtype, shape, data = value[_ARRAY]
            return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
        return {key: _revive(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_revive(item) for item in value]
    return value
