"""Helpers of the decoders of text."""

FLAGS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "on": 1.0, "off": 0.0}
"""Words for 1 and 0, where `decode.booleans` is ``numbers``."""


def bad_text_hint(value: bytes) -> str:
    """Return the option that may read bytes that are not UTF-8.

    >>> bad_text_hint("ä".encode("latin-1")), bad_text_hint("a".encode("utf-16-le")), bad_text_hint(b"a")
    ('; set encoding: cp1252 (in source for a file, else in decode)', \
'; it looks like UTF-16: set encoding: utf-16-le (in source for a file, else in decode)', '')
    """
    where = "(in source for a file, else in decode)"
    if b"\0" in value:
        order = "be" if value[:1] == b"\0" else "le"
        return f"; it looks like UTF-16: set encoding: utf-16-{order} {where}"
    try:
        value.decode()
    except UnicodeDecodeError:
        return f"; set encoding: cp1252 {where}"
    return ""
