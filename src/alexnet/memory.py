"""Keep the memory that training frees.

The maps of a batch take hundreds of megabytes, which every step frees and needs again. glibc, the C
library of most Linux systems, gets each block of more than 32 MB from the system and gives it back,
and the system fills it with zeros, page by page. At full size that is a third of the time of a step
(50 images/s with it, 75 without, on two cores; docs/log.md). So what is freed stays with the
process, for the next step. Networks of small maps are as fast either way.

Other C libraries and systems are left alone, and so are the settings of a user who set any of
glibc's own (`MALLOC_...`, `GLIBC_TUNABLES`).
"""

import ctypes
import os
from collections.abc import Mapping
from functools import cache

#: From glibc's malloc.h: never give back, take 64 MB more than was asked for, map no block alone.
KEEP = {"M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 64 << 20), "M_MMAP_MAX": (-4, 0)}
#: One heap for all threads.
SHARE = {"M_ARENA_MAX": (-8, 1)}
#: Bytes from which blocks share a heap. A heap of a thread's own holds 64 MB at most, and what does
#: not fit is spread over many: at full size two lanes then take 1.4 times the memory of one, with
#: one heap 1.2 times, and the same time. Small blocks fit; there, lanes that share a heap are 12 %
#: slower (convolutions at half width, 64 pixels).
LARGE = 32 << 20


def keep_freed(largest: int = 0) -> bool:
    """Set it, for the rest of this process; whether it was.

    Args:
        largest: bytes of the largest block that is taken again and again.
    """
    return _set(**KEEP) and (largest < LARGE or _set(**SHARE))


@cache
def _set(**settings: tuple[int, int]) -> bool:
    if not ours_to_set(os.environ) or not _glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(number, value) for number, value in settings.values()]
    return accepted == [1] * len(settings)


def ours_to_set(variables: Mapping[str, str]) -> bool:
    """Whether the environment leaves the allocator's settings open."""
    return not any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in variables)


def _glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # on Windows; on macOS, with musl
        return False
