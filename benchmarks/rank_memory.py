"""What each of several devices holds in training: parameters, gradients, velocity, activations.

    python benchmarks/rank_memory.py                     # the table of docs/training.md
    python benchmarks/rank_memory.py --scheme towers --batch 2

A step is taken by real ranks on this machine's CPU. Parameters, gradients and velocity are the
tensors that a rank has after the backward pass. Activations are what autograd keeps from the
forward pass to the backward pass, the pictures included, each piece of memory once. They grow with
the pictures that a rank sees and with nothing else: `--batch 2` gives 2/128 of the table's. What an
operation needs only while it runs is not in it, nor what a library takes for itself.

The last line is one JSON object: MB (10^6 bytes) by scheme and rank.
"""

import argparse
import json
import os
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from train_ranks import as_torchrun, free_port

from alexnet.bench import STORED, noise, preprocessing_of
from alexnet.data.augment import Augmentation
from alexnet.traffic import Scheme
from alexnet.train.parallel.ranks import open_ranks
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.choose import open_plain_step, open_ranked_step
from alexnet.train.steps.plain import PlainStep
from alexnet.variants import get_variant

GTX_580 = 3 * 2**30 / 1e6  # in MB; each of the two cards of 2012
RANKS = {"one device": 1, "towers": 2, "data": 2, "hybrid": 2}


class Kept:
    """Memory that autograd keeps for the backward pass, less the parameters'."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.own = {one.untyped_storage().data_ptr() for one in parameters}
        self.bytes: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        """Called for each tensor that is kept."""
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in self.own:
            self.bytes[memory.data_ptr()] = memory.nbytes()
        return tensor


def held(step: PlainStep) -> dict[str, float]:
    """MB that a rank holds, by kind, in a step."""
    parameters = list(step.optimiser.parameters.values())
    kept, gradients = Kept(parameters), []
    update = step.optimiser.step

    def before_update(*arguments: Any) -> None:
        gradients.extend(one.grad.nbytes for one in parameters if one.grad is not None)
        update(*arguments)

    step.optimiser.step = before_update  # type: ignore[method-assign]
    with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
        step.take(0, 0, 0.01, 1.0)
    found = {
        "parameters": sum(one.nbytes for one in parameters),
        "gradients": sum(gradients),
        "velocity": sum(one.nbytes for one in step.optimiser.velocity.values()),
        "activations": sum(kept.bytes.values()),
    }
    return {kind: size / 1e6 for kind, size in found.items()}


def work(arguments: argparse.Namespace, scheme: Scheme | None) -> list[dict[str, float]]:
    """Be a rank; what each of them holds."""
    variant = get_variant(arguments.variant)
    preprocessing = preprocessing_of(variant)
    split = noise(max(STORED, variant.input_size), arguments.batch, variant.num_classes)
    start = Start.on_records(Recipe(), variant, split, Augmentation(preprocessing, True, True, np.eye(3)))
    start = start.in_batches_of(arguments.batch)
    with open_ranks(scheme, device="cpu") as ranks:
        start.model.train()
        step = open_ranked_step(start, split, False, 1, ranks) if scheme else open_plain_step(start, False, 1)
        return ranks.all_gather_object(held(step))


def measured(arguments: argparse.Namespace, scheme: str) -> list[dict[str, float]]:
    """What each rank of a scheme holds, from processes forked for it."""
    count, port = RANKS[scheme], free_port()
    reader, writer = os.pipe()
    children = []
    for rank in range(count):
        if child := os.fork():
            children.append(child)
            continue
        try:
            if count > 1:
                os.environ.update(as_torchrun(rank, count, port))
            found = work(arguments, scheme if count > 1 else None)  # type: ignore[arg-type]
            if rank == 0:
                os.write(writer, json.dumps(found).encode())
            os._exit(0)
        except BaseException as error:
            print(f"rank {rank}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as answers:
        answer = answers.read()
    if any(os.waitpid(child, 0)[1] for child in children):
        raise SystemExit(f"{scheme}: a rank failed")
    return list(json.loads(answer))


def row(scheme: str, rank: int, held: dict[str, float]) -> str:
    """A line of the table, as docs/training.md has it."""
    whole = sum(held.values())
    name = scheme if RANKS[scheme] == 1 else f"{scheme}, rank {rank} of {RANKS[scheme]}"
    cells = [f"{held[kind]:,.1f}" for kind in ("parameters", "gradients", "velocity", "activations")]
    return f"| {name} | {' | '.join(cells)} | {whole:,.0f} | {whole / GTX_580:.0%} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--scheme", nargs="+", choices=[*RANKS], default=[*RANKS])
    arguments = parser.parse_args()
    results = {scheme: measured(arguments, scheme) for scheme in arguments.scheme}
    print("| MB | parameters | gradients | velocity | activations | together | of 3 GiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for scheme, ranks in results.items():
        for rank, held in enumerate(ranks):
            print(row(scheme, rank, held))
    print(json.dumps({"variant": arguments.variant, "batch": arguments.batch, "held": results}))


if __name__ == "__main__":
    main()
