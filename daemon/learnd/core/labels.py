"""The text of a class label: one form for configuration, records and state."""


def label_text(value: str | bool | float) -> str:
    """Return a class label as text: ``3``, ``3.0`` and ``"3"`` are the same class.

    >>> label_text("ok"), label_text(True), label_text(3.0)
    ('ok', 'true', '3')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
