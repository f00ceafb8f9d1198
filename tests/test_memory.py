"""glibc's allocator, once it was asked to keep what is freed."""

import os
import subprocess
import sys

import pytest

from alexnet import memory

BLOCK = 100 << 20
PROGRAM = f"""
import ctypes
from pathlib import Path
from alexnet.memory import keep_freed

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
keeps = keep_freed()
block = libc.malloc({BLOCK})
ctypes.memset(block, 1, {BLOCK})
libc.free(block)
print(int(keeps), int(Path("/proc/self/statm").read_text().split()[1]) * {os.sysconf("SC_PAGE_SIZE")})
"""


def kept(**variables: str) -> tuple[bool, bool]:
    """Whether it says that memory is kept, and whether it is."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    keeps, resident = done.stdout.split()
    return bool(int(keeps)), int(resident) > BLOCK


@pytest.mark.skipif(not memory._glibc(), reason="needs glibc")
def test_freed_memory_stays_with_the_process() -> None:
    assert kept() == (True, True)


@pytest.mark.skipif(not memory._glibc(), reason="needs glibc")
def test_settings_of_the_user_stay() -> None:
    assert kept(MALLOC_ARENA_MAX="2") == (False, False)
    assert not memory.ours_to_set({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"})
    assert memory.ours_to_set({"PATH": "/bin", "TUNABLES_MALLOC_": "1"})


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(memory.os, "confstr", unknown, raising=False)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("the library was touched"))
    assert memory._set.__wrapped__(**memory.KEEP) is False
