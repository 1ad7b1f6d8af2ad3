"""The ``learnd`` command."""
