"""The one error that callers see, and the one way of saying something to the user.

What only concerns delivery (a dead server, a full disk) is said, never raised: training goes on.
"""

from __future__ import annotations

import os
import sys

_said: set[object] = set()


class PlatformError(Exception):
    """A call that cannot be done: says the value given, what is allowed and what to do next."""


def say(message: str, once: object = None) -> None:
    """Writes one line to stderr; with `once`, only the first time for that key in this process."""
    if once is not None:
        if once in _said:
            return
        _said.add(once)
    try:
        sys.stderr.write("platform: " + message + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # A closed or missing stderr (pythonw, daemons) must not end training.
        pass


def reason(error: BaseException) -> str:
    """The shortest words for an operating-system error."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower() if error.errno > 0 else str(error)
    return str(error) or type(error).__name__
