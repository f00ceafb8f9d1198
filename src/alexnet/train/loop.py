"""Training: `alexnet train RECIPE --data STORE --out RUN`.

`learn` is the algorithm, section 5 of the paper: at each step learning rate, update and log; after
each epoch the held-out error and a checkpoint. `start.py` builds what it works with, `session.py`
keeps what changes meanwhile. What a step is (batch, forward, backward, update) is in
`steps/plain.py`; on NVIDIA's GPUs `steps/fused.py` takes the same step in an order that keeps a GPU
busy.

Which pictures a batch holds is a function of (seed, epoch, step), and what chance does to one
(crop, mirror, colours, dropped units) is a function of (seed, epoch, picture). So a run that was
killed at any moment and resumed from its last checkpoint ends with the same bits (same machine,
CPU, number of threads and lanes), whatever the number of loader workers.

On a GPU the weights at the start, the batches, crops, mirrors, colours and dropped units are those
of a CPU. The order in which a kernel adds floats is not: two runs of one seed may drift apart by
rounding.
"""

from pathlib import Path

from alexnet.data.store import Store
from alexnet.evaluate import Evaluation
from alexnet.train.optim import learning_rate
from alexnet.train.parallel.ranks import ALONE, Ranks
from alexnet.train.recipes import Recipe
from alexnet.train.session import Session, open_session
from alexnet.trained import Trained


def train(
    recipe: Recipe,
    store: Store,
    folder: Path,
    resume: bool = False,
    overwrite: bool = False,
    lanes: int | None = None,
    ranks: Ranks = ALONE,
    compared: bool = False,
) -> Trained:
    """Train, or go on training, until the recipe's last epoch.

    Args:
        recipe: what to do. A resumed run may be given more epochs than it was begun with: from
            where it is, its learning rate follows the schedule of that many epochs.
        store: its `train` split is trained on, the other one is tested on. Pictures much larger
            than the recipe wants are resampled (`start.fitting`).
        folder: the run's folder.
        resume: go on from the folder's last checkpoint.
        overwrite: delete the run that the folder holds, and begin anew.
        lanes: over how many each batch is split on a CPU; None for those that are fastest here.
        ranks: the processes that train together, each of which calls this (`parallel/ranks.py`).
            Only the first writes to the folder.
        compared: whether the result is compared with those of other runs, as in a study: then
            precision (=auto) is float32 on every CPU.

    Returns:
        The network after the last epoch, as in `latest.safetensors`.

    Raises:
        RecipeError: recipe and store do not fit.
        StoreError: the store is damaged, or its pictures cannot be resampled.
        TrainingError: the folder is in the way or gone, the disk or the GPU's memory is full, or
            the loss is no longer finite.
        CheckpointError: a checkpoint could not be written or read.
        Interrupted: the user stopped it; it was saved.
    """
    with open_session(recipe, store, folder, resume, overwrite, lanes, ranks, compared) as session:
        return train_and_test(session)[0]


def train_and_test(session: Session) -> tuple[Trained, Evaluation | None]:
    """The network after the last epoch, and its evaluation on the held-out pictures, one view, or
    None if the run had already ended. Errors as those of `train`.
    """
    if not session.finished:
        with session.under_way():
            learn(session)
    return session.end(), session.result


def learn(session: Session) -> None:
    """Stochastic gradient descent, from where the run is to its last epoch."""
    recipe, place, steps = session.recipe, session.place, session.start.loader.steps_per_epoch
    while place.epoch < recipe.epochs:
        session.begin_epoch()
        while place.step < steps and not session.fitted_head:
            now = place.epoch + place.step / steps
            lr, lr_scale = learning_rate(recipe, place.epoch, place.step, steps, place.errors)
            session.step.take(place.epoch, place.step, lr, lr_scale, session.look())
            session.count_step(now, lr * lr_scale)  # every so often a line of the log
            session.save_if_due(now)
        error = session.evaluate()
        session.end_epoch(error)  # a line of the log, and a checkpoint
