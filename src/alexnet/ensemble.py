"""Average several networks: `alexnet evaluate RUN RUN ... --data STORE --average`.

As in the paper (section 6, table 2), each network's class probabilities are averaged over its
views, and then over the networks; five of them lowered the top-1 error from 40.7 to 38.1 %.

On request the average is weighted. The coefficients are not negative, sum to one, and make the true
classes most likely on a part of the held-out pictures, every second one; the result is that of the
other ones, which the coefficients have not seen. Plain averaging is tested on those too, so that
the two numbers can be compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.loader import in_order
from alexnet.data.preprocessing import Views
from alexnet.data.remote_records import RemoteRecords
from alexnet.data.store import Split, Store
from alexnet.engines import Classifier
from alexnet.errors import CheckpointError
from alexnet.evaluate import BATCH_SIZE, Counts, Evaluation, check_arguments, fitting, probabilities, same_form
from alexnet.meter import Meter

FIT_STEPS = 1000
FIT_CHANGE = 1e-7


@dataclass(frozen=True)
class Average:
    """What an average of networks gives, and what each gives alone, on the same pictures.

    Attributes:
        alone: each network's own result.
        plain: of the plain average.
        coefficients: the fitted ones, or None.
        fitted: of the average weighted by them, or None.
    """

    alone: tuple[Evaluation, ...]
    plain: Evaluation
    coefficients: tuple[float, ...] | None = None
    fitted: Evaluation | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "networks": len(self.alone),
            "alone": [{"top1_error": one.top1_error, "top5_error": one.top5_error} for one in self.alone],
            "average": self.plain.as_json(),
            "coefficients": self.coefficients,
            "fitted": self.fitted and self.fitted.as_json(),
        }


def evaluate_average(
    networks: Sequence[Classifier], store: Store, split: str | None = None, views: Views = 1, fit: bool = False
) -> Average:
    """Test networks together on a store's held-out pictures, or on the split named.

    Args:
        networks: of any variants and input sizes, trained on stores like this one.
        fit: fit coefficients on the 1st, 3rd, 5th ... picture and test on the others. Without,
            all pictures are tested on.

    Raises:
        CheckpointError: there are fewer than two networks, or one does not fit the store.
    """
    check_arguments(networks, store, views)
    if len(networks) < 2:
        raise CheckpointError(f"an average needs at least two networks, but got {len(networks)}: name more runs.")
    if len({same_form(one.classes) for one in networks}) > 1:
        raise CheckpointError(
            "these networks have different classes, or the same in another order, and cannot be "
            "averaged: name runs trained on the same classes."
        )
    store, outputs = fitting(networks, store)
    chosen = store.split(split) if split else store.held_out
    if fit and len(chosen) < 2:
        raise CheckpointError(f"{chosen.name} holds {len(chosen)} picture: too few to fit coefficients on one half of them.")
    with Meter(f"evaluating {chosen.name}", len(networks) * len(chosen), "images") as meter:
        asked = _Asked(networks, outputs, views, meter)
        coefficients = _fitted_coefficients(asked, _every_second(chosen, 0)) if fit else None
        return _test(asked, _every_second(chosen, 1) if fit else chosen, coefficients)


def fit_coefficients(likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients that maximise the mean logarithm of the true class's averaged probability.

    Expectation maximisation for the weights of a mixture: each step gives a network the share of
    the likelihood that it contributed. The objective is concave and no step lowers it, so there is
    one answer, and it is not negative and sums to one.

    Args:
        likelihoods: (N, M) probability that network m gives to picture n's true class.

    Returns:
        (M,) coefficients.
    """
    likelihoods = np.maximum(likelihoods, np.finfo(np.float32).tiny)
    weights = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    for _ in range(FIT_STEPS):
        shares = likelihoods * weights
        earlier, weights = weights, (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(weights - earlier).max() < FIT_CHANGE:
            break
    return weights


def _every_second(split: Split, start: int) -> Split:
    records = split.records
    half = records.every(2, start) if isinstance(records, RemoteRecords) else records[start::2]
    return replace(split, records=half, labels=split.labels[start::2], blocks=())


@dataclass(frozen=True)
class _Asked:
    """Networks that are asked together; `outputs` is their number of each of the store's
    classes.
    """

    networks: Sequence[Classifier]
    outputs: Tensor
    views: Views
    meter: Meter

    def __call__(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Each batch's (N,) true classes, and the (M, N, K) float32 probabilities that the
        networks give, on the CPU.
        """
        for records, labels in in_order(split, BATCH_SIZE):
            parts = []
            for one in self.networks:
                there = records.to(one.preprocessing.mean.device)
                parts.append(probabilities(one.network, one.preprocessing, there, self.views).cpu())
                self.meter.add(len(labels))
            yield self.outputs[labels], torch.stack(parts)


def _fitted_coefficients(asked: _Asked, split: Split) -> NDArray[np.float64]:
    likelihoods = [
        parts.gather(2, labels.expand(len(parts), -1)[:, :, None])[:, :, 0].T.double().numpy() for labels, parts in asked(split)
    ]
    return fit_coefficients(np.concatenate(likelihoods))


def _test(asked: _Asked, split: Split, coefficients: NDArray[np.float64] | None) -> Average:
    """Every network alone, the plain average and the weighted one, in one pass."""
    m, classes = len(asked.networks), asked.networks[0].classes
    rows = [*torch.eye(m), torch.full((m,), 1 / m)]
    if coefficients is not None:
        rows.append(torch.from_numpy(coefficients).float())
    mixing = torch.stack(rows)  # (R, M): one row for each result
    counts = [Counts(len(classes), torch.device("cpu")) for _ in rows]
    for labels, parts in asked(split):
        for mixed, count in zip(torch.einsum("rm,mnk->rnk", mixing, parts), counts, strict=True):
            count.add(mixed, labels)
    *alone, plain = (count.evaluation(classes, asked.views) for count in counts[: m + 1])
    if coefficients is None:
        return Average(tuple(alone), plain)
    return Average(tuple(alone), plain, tuple(coefficients.tolist()), counts[-1].evaluation(classes, asked.views))
