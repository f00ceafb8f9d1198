"""Every kernel compiles for both generations of GPU, and nothing spills out of the registers,
in every tile size that may be chosen for it but the convolution's: of its sixteen the largest that
fits, and the five of one and a half times a power of two. No GPU is needed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes that one program can have, which products of matrices fill with what comes next
SCRIPT = Path(__file__).with_name("compile_kernels.py")


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile(compiled: list[dict[str, Any]], capability: int) -> None:
    found = [kernel for kernel in compiled if kernel["capability"] == capability]
    assert len({kernel["kernel"] for kernel in found}) == 31
    for kernel in found:
        assert kernel["ptx"] > 1000 and kernel["instructions"] > 50, kernel
        assert kernel["stack"] == 0, f"{kernel['kernel']} spills: {kernel}"
        assert kernel["shared"] <= (SHARED[capability] if "convolve" in kernel["kernel"] else 48 << 10), kernel
