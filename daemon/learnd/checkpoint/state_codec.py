"""Exact conversion of component state (numbers, strings, lists, dicts, arrays) to bytes and back."""

from typing import Any

import msgspec
import numpy as np

from learnd.core.types import State

_ARRAY = "__array__"


def encode(state: State) -> bytes:
    """Return *state* as MessagePack, with arrays as dtype, shape and little-endian bytes.

    >>> decode(encode({"a": np.arange(3.0), "b": [1, "x", None]}))
    {'a': array([0., 1., 2.]), 'b': [1, 'x', None]}
    """
    return _ENCODER.encode(state)


def decode(data: bytes) -> State:
    """Return the state that was encoded. Arrays are writable; tuples have become lists."""
    state: State = _with_arrays(msgspec.msgpack.decode(data))
    return state


def _encode_array(value: object) -> object:
    """Convert a NumPy array or scalar to what MessagePack can hold."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        flat = np.ascontiguousarray(value)
        return {_ARRAY: [flat.dtype.str, list(value.shape), flat.tobytes()]}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be part of a state; use numbers, text, arrays, lists or dicts")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_array)


def _with_arrays(value: Any) -> Any:
    """Return *value* with every encoded array in it converted back."""
    if isinstance(value, dict):
        if _ARRAY in value:
            dtype, shape, data = value[_ARRAY]
            return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
        return {key: _with_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item) for item in value]
    return value
