"""Tile sizes: measured where a kernel first runs, so that they fit the GPU
at hand, and kept on disk.

How much of a tensor a program takes, and how many warps share it, changes no result but a kernel's
time, and the best of a few sizes differs from one GPU to the next with its multiprocessors,
registers and cache. So a kernel names a few configurations; the first launch of each kind runs each
for about 10 ms on its own arguments and takes the fastest (`triton.autotune`).

* What is tuned: the kernels whose time counts, over tile size, warps, and rows per program. A file
  says what it leaves fixed.
* When: in the first steps of a run, which are eager, before the CUDA graph is recorded; a graph
  holds the sizes chosen by then. A launch is of a new kind if a dtype or a `key` argument of it is
  new: channels, sides of the map, `octave` of the batch. Maps with their towers apart and together
  share a choice.
* Where: in Triton's cache (~/.triton/cache, or TRITON_CACHE_DIR), with the compiled kernels.
  The next process finds the choice there and measures nothing. The folder is keyed by compute
  capability, Triton and the kernel's text, so GPUs of one capability that share a home share a
  choice. TRITON_PRINT_AUTOTUNING=1 prints what is chosen. A choice made while other programs
  kept the GPU busy may be a poor one: empty the folder, and let one run begin before
  `--at-once` starts several.
* What it costs, once per machine: each configuration's compiling, half a second (a convolution's up
  to 2.5), and its 10 ms; meanwhile 256 MB of the GPU's memory, to empty its cache with.

A kernel that adds in place must not be measured on its own arguments (`sgd_step.py` takes others);
one that writes all of its output anew may be: what the last launch wrote stays. A choice may change
the order of float32 sums, in the biases' gradients. Two machines may therefore differ by rounding;
one machine with its cache does not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import triton
import triton.testing

SMALLEST = 20  # log2; below a million numbers, 4 MB to move in bfloat16 or 1 us, a launch takes longer than what it launches


def tuned(
    configs: list[triton.Config], key: list[str], useful: Callable[..., list[triton.Config]] | None = None
) -> Callable[[Any], Any]:
    """A decorator for a `triton.jit` function: it runs with the fastest of `configs` for each
    value of its `key` arguments. `useful` says which are worth compiling for a launch, from all of
    them, its arguments by position, and those by name.

    A launch leaves out the configuration's constants; a grid that depends on them is a function of
    them. Interpreted kernels run with the first configuration.
    """
    chosen_from = configs[:1] if triton.knobs.runtime.interpret else configs
    pruned = {"early_config_prune": useful} if useful else None
    return triton.autotune(chosen_from, key=key, prune_configs_by=pruned, do_bench=measure, cache_results=True)


def octave(numbers: int) -> int:
    """log2 of a tensor's size, rounded up, for a kernel's key: batches of about
    one size share a choice."""
    return max(SMALLEST, (numbers - 1).bit_length())


def measure(launch: Callable[[], object], quantiles: Sequence[float]) -> list[float]:
    """Milliseconds that a launch takes, with the GPU's cache emptied before each."""
    return triton.testing.do_bench(launch, warmup=2, rep=10, quantiles=list(quantiles))
