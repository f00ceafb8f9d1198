"""Several ranks on this machine, for tests: `python in_ranks.py STORE OUT`.

To import PyTorch takes seconds, so one process does that and forks all ranks. Each configuration is
trained by its number of ranks for a few steps, and by one process; rank 0 writes the gradients of
the first step, and the weights and velocity after the last, to OUT/NAME.safetensors.
"""

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import runs
import torch
from safetensors.torch import save_file
from torch import Tensor

from alexnet.data.store import Store
from alexnet.errors import Interrupted, TrainingError
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.parallel.ranks import Ranks, open_ranks
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.choose import open_plain_step, open_ranked_step
from alexnet.train.steps.plain import PlainStep

STEPS = 20
TWO_TOWERS = ("paper", "code-2012", "caffe", "caffenet")
VARIANTS = (*TWO_TOWERS, "owt", "torchvision")


@dataclass(frozen=True)
class Case:
    """One network, trained in one way."""

    variant: str
    scheme: str
    ranks: int
    double: bool = True
    batch_size: int = 7
    lanes: int = 1
    smoothing: float = 0.0
    seed: int = 0
    again: int = 0

    @property
    def name(self) -> str:
        kind = "float64" if self.double else "float32"
        more = [
            f"batch{self.batch_size}",
            f"lanes{self.lanes}",
            f"smoothing{self.smoothing}",
            f"seed{self.seed}",
            f"again{self.again}",
        ]
        return "-".join([self.variant, self.scheme, str(self.ranks), kind, *more])

    @property
    def alone(self) -> "Case":
        """The same in one process."""
        return replace(self, scheme="alone", ranks=1, lanes=1, again=0)


#: Trained a second time, for the same bits.
AGAIN = [Case("paper", scheme, 2, False, again=1) for scheme in ("data", "hybrid", "towers")]


def cases() -> list[Case]:
    """Each variant and scheme on two ranks in both precisions, and what more ranks add."""
    # torchvision in float32 with seed 0: in step 12 a unit of relu7 gets 3e-7, where the others
    # deviate by 3.5. Rounded otherwise it is below 0, in one process too, and fc7's bias is 6e-4
    # elsewhere. With seed 1 there is no such unit.
    both = [
        Case(name, scheme, 2, double, seed=int(name == "torchvision" and not double))
        for name in VARIANTS
        for scheme in ("data", "hybrid")
        for double in (True, False)
    ]
    towers = [Case(name, "towers", 2, double) for name in TWO_TOWERS for double in (True, False)]
    pairs = [Case(name, "towers", 4) for name in ("code-2012", "caffenet")]
    three = [Case("paper", "hybrid", 3), Case("torchvision", "data", 3)]
    one_without = [Case("owt", scheme, 4, batch_size=3) for scheme in ("data", "hybrid")]
    weighted = [Case("caffe", scheme, 2, smoothing=0.1) for scheme in ("data", "hybrid", "towers")]
    lanes = [Case("paper", scheme, 2, False, lanes=2) for scheme in ("data", "hybrid")]
    return [*both, *towers, *pairs, *three, *one_without, *weighted, *lanes, *AGAIN]


def begun(case: Case, store: Store) -> Start:
    """A small network on real records, with all that chance does to them."""
    settings: dict[str, Any] = {
        "width": 1 / 16,
        "input_size": 68,
        "lr": 0.005,
        "dropout": 0.5,
        "crop": True,
        "mirror": True,
        "colour_noise": 0.1,
    }
    smoothed = {"label_smoothing": case.smoothing, "class_weights": "balanced"} if case.smoothing else {}
    recipe = recipes.get_recipe(
        "laptop", variant=case.variant, batch_size=case.batch_size, seed=case.seed, **settings, **smoothed
    )
    start = Start.fresh(recipe, store, torch.device("cpu"))
    if not case.double:
        return start
    model, single = start.model.double(), start.augmentation

    def in_double(*arguments: Any) -> Tensor:
        return single(*arguments).double()

    return replace(start, augmentation=in_double, optimiser=start.optimising(model))  # type: ignore[arg-type]


def trained(case: Case, store: Store, ranks: Ranks) -> dict[str, Tensor]:
    """The gradients of the first step; the weights and velocity after the last."""
    start, found = begun(case, store), {}
    ranks = replace(ranks, wanted="data" if case.scheme == "alone" else case.scheme).settled(start.variant, case.batch_size)
    torch.set_num_threads(case.lanes)
    step: PlainStep = (
        open_ranked_step(start, store.held_out, False, case.lanes, ranks) if ranks.several else open_plain_step(start, False, 1)
    )

    def look(_: Tensor) -> None:
        found.update(
            {f"gradient.{name}": one.grad.clone() for name, one in start.model.named_parameters() if one.grad is not None}
        )

    def looking(number: int) -> Callable[[Tensor], None] | None:
        return look if number == 0 else None

    per_epoch = start.loader.steps_per_epoch
    start.model.train()
    for number in range(STEPS):
        step.take(number // per_epoch, number % per_epoch, start.recipe.lr, 1.0, looking(number))
    step.whole()
    loss, wrong, _ = step.collect()
    found |= {"loss": torch.tensor(loss, dtype=torch.float64), "wrong": torch.tensor(wrong)}
    found |= {**start.model.state_dict(), **start.optimiser.state()}
    step.close()
    return {name: tensor.contiguous() for name, tensor in found.items()}


@contextmanager
def as_rank(rank: int, count: int, port: int) -> Iterator[None]:
    """The environment that torchrun gives."""
    here = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in here.items()}})
    yield


def in_ranks(count: int, work: Callable[[Ranks], None], scheme: str = "data") -> None:
    """Run `work` in so many processes at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_forked(rank, count, port, work, scheme) for rank in range(count)]
    endings = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(endings), f"{count} ranks ended with {endings}"


def _forked(rank: int, count: int, port: int, work: Callable[[Ranks], None], scheme: str) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.set_num_threads(1)
        with as_rank(rank, count, port), open_ranks(scheme, timeout=60) as ranks:
            work(ranks)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


# --- a run that goes on with other ranks ----------------------------------------------------------

#: Ranks, how they share the work, and after how many steps they are stopped.
ELASTIC = ((4, "towers", 4), (2, "hybrid", 5), (1, "data", 3), (3, "auto", None))


def settings() -> Recipe:
    """24 steps of 9 pictures: the health is looked at once, at the 20th."""
    return runs.recipe(width=1 / 16, epochs=4, batch_size=9, lr=0.02, dropout=0.5, crop=True, mirror=True, keep="0,2")


def stop_after(steps: int) -> None:
    """Ctrl-C comes after so many updates."""
    update, calls = SGD.step, []

    def stopping(self: SGD, lr: float, scale: float = 1.0) -> None:
        update(self, lr, scale)
        calls.append(1)
        if len(calls) == steps:
            os.kill(os.getpid(), signal.SIGINT)

    SGD.step = stopping  # type: ignore[method-assign]


def note_pictures() -> list[Any]:
    """Of each step that is taken: epoch, step, share of the batch, and its pictures."""
    take, seen = PlainStep.take, []

    def noting(self: PlainStep, epoch: int, step: int, *others: Any) -> None:
        seen.append([epoch, step, self.loader.share, self.loader.indices(epoch, step).tolist()])
        take(self, epoch, step, *others)

    PlainStep.take = noting  # type: ignore[method-assign]
    return seen


def elastic(store_folder: str, out: Path) -> None:
    """Train OUT/elastic by one number of ranks after another; OUT/seen-NUMBER-RANK.json notes its
    pictures.
    """
    for number, (count, scheme, steps) in enumerate(ELASTIC):

        def work(ranks: Ranks, number: int = number, steps: int | None = steps) -> None:
            seen = note_pictures()
            if steps and ranks.first:
                stop_after(steps)
            with suppress(Interrupted) if steps else nullcontext():
                train(settings(), Store(Path(store_folder)), out / "elastic", resume=number > 0, ranks=ranks)
            (out / f"seen-{number}-{ranks.rank}.json").write_text(json.dumps(seen))

        in_ranks(count, work, scheme)


def tuning(weights: Path) -> Recipe:
    """A new last layer, then the layers from conv4 on."""
    return recipes.get_recipe(
        "finetune", weights=str(weights), tune="from conv4", features="fc6", epochs=3, batch_size=7, device="cpu"
    )


def tuned(store_folder: str, out: Path) -> None:
    """Fine-tune what `elastic` left, to OUT/tuned: in towers, without fc7."""

    def work(ranks: Ranks) -> None:
        train(tuning(out / "elastic"), Store(Path(store_folder)), out / "tuned", ranks=ranks)

    in_ranks(2, work, "towers")


def broken(store_folder: str, out: Path) -> None:
    """A loss that is not finite; OUT/broken-RANK.txt has the error of each rank."""

    def work(ranks: Ranks) -> None:
        try:
            train(replace(settings(), lr=1e5), Store(Path(store_folder)), out / "broken", ranks=ranks)
        except TrainingError as error:
            (out / f"broken-{ranks.rank}.txt").write_text(str(error))

    in_ranks(2, work, "towers")


def main(store_folder: str, out: str) -> None:
    """All cases, by number of ranks."""
    wanted = cases()
    wanted += dict.fromkeys(case.alone for case in wanted)
    torch.set_num_threads(1)  # threads do not survive a fork
    begun(wanted[0], Store(Path(store_folder)))  # loads what every rank would load, half a second each
    for count in (1, 2, 3, 4):

        def work(ranks: Ranks) -> None:
            store = Store(Path(store_folder))
            for case in wanted:
                if case.ranks == ranks.count:
                    found = trained(case, store, ranks)
                    if ranks.first:
                        save_file(found, Path(out) / f"{case.name}.safetensors")

        in_ranks(count, work)
    elastic(store_folder, Path(out))
    tuned(store_folder, Path(out))
    broken(store_folder, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
