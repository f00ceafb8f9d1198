"""One process at a time in a folder."""

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: there the user keeps order
    fcntl = None  # type: ignore[assignment]


def acquire(file: IO[Any]) -> bool:
    """Lock an open file until it is closed or the process ends, however it ends; False if another process holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
