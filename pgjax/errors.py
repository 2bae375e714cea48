"""The one exception that a wrong input raises."""


class InputError(ValueError):
    """Something the caller gave cannot be used; the message says what was expected and what came.

    The library raises it before anything is compiled or written. The experiments print the message and end with
    exit status 2.
    """
