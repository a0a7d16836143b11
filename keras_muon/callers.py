"""What the local variables of a calling function hold, without keeping it alive."""

import inspect
import sys
from types import FrameType
from typing import Any

# Who holds a snapshot that nobody asked for: its frame, the variable here, and the
# argument of `getrefcount`.
HOLDERS = 3


def local_variables(frame: FrameType) -> dict[str, Any]:
    """Return the local variables of a running function by name, as a copy.

    Before Python 3.13 reading `frame.f_locals` leaves a snapshot in the frame, which
    keeps every value until the function returns, also those that it lets go of: in a
    training loop a copy of all parameters. So the snapshot is emptied again, unless
    somebody else holds it: a debugger, or the function itself by `locals()`.

    Args:
        frame: The frame of the function. That of a module has its global variables.

    Source: PEP 667, which describes the snapshot and ends it.
    """
    snapshot = frame.f_locals
    copied = dict(snapshot)
    of_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
    if sys.version_info < (3, 13) and of_function:
        if sys.getrefcount(snapshot) == HOLDERS:
            snapshot.clear()
    return copied
