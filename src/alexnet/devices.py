"""Where to compute, on how many cores and in which precision, and what to say when a GPU's memory
is full.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

import torch

from alexnet.console import say
from alexnet.errors import RecipeError, TrainingError

#: Where a container finds its limits.
CGROUP = Path("/sys/fs/cgroup")
#: Instruction sets without bfloat16 products that oneDNN may be restricted to.
BELOW_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
#: Where Linux shows that NVIDIA's driver is loaded.
NVIDIA = Path("/proc/driver/nvidia/version")


def pick_device(wanted: str) -> torch.device:
    """The device that the recipe names, or the best available one.

    Raises:
        RecipeError: it is not there.
    """
    chosen = meant(wanted)
    if wanted == "auto" and chosen != "cuda" and NVIDIA.exists():
        say(f"PyTorch cannot use this machine's NVIDIA GPU ({_why_no_cuda()}): going on, many times slower, on {chosen}.")
    if chosen not in _available():
        reason = f" ({_why_no_cuda()})" if wanted == "cuda" else ""
        known = ", ".join(_available())
        raise RecipeError(f"device (={wanted!r}) is not available to PyTorch here{reason}; available: {known}.")
    return torch.device(chosen)


def meant(wanted: str) -> str:
    """The device that a recipe's name stands for on this machine, be it there or not."""
    return _available()[0] if wanted == "auto" else wanted


def _available() -> list[str]:
    """PyTorch's devices here, the best one first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in there.items() if available]


def _why_no_cuda() -> str:
    """In PyTorch's words: built without CUDA, no driver, a driver too old."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split("\n")[0].split(". ")[0]
    return "it sees no device; is CUDA_VISIBLE_DEVICES empty?"


def pick_precision(wanted: str, device: torch.device, fused: bool) -> str:
    """What to compute in: bf16 where the GPU has it and the step is the fused one, which
    `train/steps/choose.py` then asks whether it can tell the pictures apart; tf32 on other GPUs,
    fp32 elsewhere; bf16 on a CPU only if requested (`lacks_bf16`).

    Raises:
        RecipeError: it is not to be had there.
    """
    cuda = device.type == "cuda"
    bf16 = fused and (not cuda or torch.cuda.is_bf16_supported(including_emulation=False))
    if wanted == "auto":
        return "fp32" if not cuda else "bf16" if bf16 else "tf32"
    if wanted == "bf16" and not bf16 and device.type == "cpu":
        if reason := lacks_bf16():
            raise RecipeError(f"precision (=bf16) needs a processor with AVX512-BF16 or AMX, and {reason}: use fp32.")
    elif wanted == "bf16" and not bf16:
        raise RecipeError(
            "precision (=bf16) needs the fused step and a GPU of compute capability 8.0 or newer: use tf32 or fp32."
        )
    if wanted == "tf32" and not cuda:
        raise RecipeError(f"precision (=tf32) is a type of NVIDIA's GPUs, and this runs on {device.type}: use fp32.")
    return wanted


def lacks_bf16() -> str | None:
    """Why this processor has no bfloat16 products, in a few words; None if it has (AVX512-BF16 or
    AMX). Others emulate bfloat16 in float32, which is slower than float32 itself.
    """
    kinds = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if not any(getattr(torch.cpu, kind, bool)() for kind in kinds):  # `bool`: False in a PyTorch without the function
        return "this one has neither"
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):  # oneDNN computes the products
        if os.environ.get(name, "").upper() in BELOW_BF16:
            return f"{name} (={os.environ[name]}) disables that"
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        asked = os.environ.get("ATEN_CPU_CAPABILITY")
        return f"ATEN_CPU_CAPABILITY (={asked}) disables that" if asked else "this PyTorch uses neither"
    return None if torch.backends.mkldnn.is_available() else "this PyTorch is built without oneDNN"


def set_precision(precision: str, device: torch.device) -> None:
    """Let float32 products on a GPU be tf32 unless fp32 was requested: beside bf16 they are fc8's
    alone. Call it before anything is timed or chosen there.

    PyTorch has two sets of switches, and asking one after setting only the other is an error, which
    its own compiler runs into: so both are set.
    """
    if device.type == "cuda":
        tf32 = precision != "fp32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        kind = "tf32" if tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = kind
        torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = True


def cores() -> int:
    """Cores that this process may use: those it is bound to, or as many as its container may keep
    busy; at least one.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(bound, _quota(CGROUP))))


def _quota(cgroup: Path) -> float:
    """How many cores a container may keep busy; infinite where nothing limits them."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return float(quota) / float(period) if quota != "max" else inf
    except (OSError, ValueError):
        pass
    try:  # as older systems have it
        quota, period = ((cgroup / "cpu" / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else inf
    except (OSError, ValueError):
        return inf


@contextmanager
def room_for(what: str, device: torch.device, remedy: str) -> Iterator[None]:
    """Inside it, a GPU whose memory is full is an error that says what does
    not fit and what to try.

    Args:
        what: needs the memory, with its value, such as "batch_size (=128)".
        remedy: the options to pass.

    Raises:
        TrainingError: the GPU's memory is full.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info(device)
        raise TrainingError(
            f"{what} does not fit into the GPU's memory ({free / 2**30:.1f} of {total / 2**30:.1f} GiB are free, other "
            f"programs included): try {remedy}."
        ) from error
