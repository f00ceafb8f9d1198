"""A new last layer, fitted at once: multinomial logistic regression by L-BFGS.

    minimise over W, b:  mean over rows of -log softmax(W z + b)[class] + decay / 2 * |W|^2

z are the features that the network below gives, minus their mean and divided by one number, their
deviation: `decay` then means the same for every network and stage. Both are folded into the layer's
weight and bias, so the result is a layer like any other. The problem is convex: the start
does not matter, and there is no learning rate to choose.

`choose` takes the decay, and the stage that the layer reads, by the loss on a part of the
training pictures that is held out for it. The test pictures are not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.loader import HOLD_OUT, stream

#: Tried from the largest on; each starts where the one before ended.
DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
#: Up to so many pictures every fold is held out once, above it one is.
FOLDS, FEW = 5, 1000
MOST, VIEWS = 2000, 2
ITERATIONS, HISTORY = 200, 20
TOLERANCE = 1e-5  # of the gradient's largest entry
ROWS_AT_ONCE = 16_384  # 600 MB of pool5 in float32


@dataclass(frozen=True)
class Head:
    """A last layer.

    Attributes:
        weight: (K, D) float32.
        bias: (K,) float32.
        loss: on the rows that it was fitted to, without the decay.
        error: top-1, on the same, in [0, 1].
    """

    weight: Tensor
    bias: Tensor
    loss: float
    error: float

    def losses(self, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Mean loss and top-1 error on other pictures: (N, V, D) features, (N,) labels.

        The probabilities of a picture's views are averaged, as in a test.
        """
        logits = torch.cat([part.float() @ self.weight.T for part in features.split(ROWS_AT_ONCE)]) + self.bias  # (N, V, K)
        shares = logits.softmax(2).mean(1)
        right = shares[torch.arange(len(labels)), labels].clamp_min(1e-12)
        return float(-right.log().mean()), float((shares.argmax(1) != labels).float().mean())


@dataclass(frozen=True)
class Choice:
    """What held-out pictures say.

    Attributes:
        stage: that the layer reads.
        decay: of its weight.
        loss, error: on the pictures held out.
        tried: (stage, decay, loss, error) of everything that was tried.
    """

    stage: str
    decay: float
    loss: float
    error: float
    tried: tuple[tuple[str, float, float, float], ...]


def fit(features: Tensor, labels: Tensor, classes: int, decay: float) -> Head:
    """The best last layer.

    Args:
        features: (N, V, D) float: V views of N pictures.
        labels: (N,) int64.
        classes: K.
        decay: as in the formula above.
    """
    rows, targets = features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
    mean, deviation = moments(rows)
    parts = rows.split(ROWS_AT_ONCE)
    if len(parts) == 1:  # several would take too much memory in float32
        parts = ((rows.float() - mean) / deviation,)
    weight, bias = torch.zeros(classes, rows.shape[1]), torch.zeros(classes)
    _minimise(weight, bias, parts, targets, (mean, deviation), decay)
    loss, error = _on_rows(parts, targets, weight, bias, (mean, deviation))
    folded = weight / deviation
    return Head(folded, bias - folded @ mean, loss, error)


def moments(rows: Tensor) -> tuple[Tensor, float]:
    """The mean of each feature, (D,) float32, and one deviation for all."""
    parts = rows.split(ROWS_AT_ONCE)
    mean = torch.stack([part.float().sum(0, dtype=torch.float64) for part in parts]).sum(0) / len(rows)
    square = sum(float((part.float() - mean.float()).square().sum(dtype=torch.float64)) for part in parts)
    return mean.float(), max((square / rows.numel()) ** 0.5, 1e-12)


def _standard(part: Tensor, whole: bool, mean: Tensor, deviation: float) -> Tensor:
    return part if whole else (part.float() - mean) / deviation


def _minimise(
    weight: Tensor, bias: Tensor, parts: tuple[Tensor, ...], targets: Tensor, scaling: tuple[Tensor, float], decay: float
) -> None:
    """L-BFGS on weight and bias, in place."""
    total = len(targets)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        history_size=HISTORY,
        tolerance_grad=TOLERANCE,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        loss = 0.5 * decay * float(weight.square().sum())
        weight.grad, bias.grad = decay * weight, torch.zeros_like(bias)
        for part, labels in zip(parts, targets.split(ROWS_AT_ONCE), strict=True):
            z = _standard(part, len(parts) == 1, *scaling)
            logits = torch.addmm(bias, z, weight.T)
            shares = logits.log_softmax(1)
            loss += float(F.nll_loss(shares, labels, reduction="sum")) / total
            gradient = shares.exp_()
            gradient[torch.arange(len(labels)), labels] -= 1
            weight.grad.addmm_(gradient.T, z, alpha=1 / total)
            bias.grad += gradient.sum(0) / total
        return loss

    with torch.no_grad():
        solver.step(closure)
    weight.grad = bias.grad = None


def _on_rows(
    parts: tuple[Tensor, ...], targets: Tensor, weight: Tensor, bias: Tensor, scaling: tuple[Tensor, float]
) -> tuple[float, float]:
    logits = torch.cat([torch.addmm(bias, _standard(part, len(parts) == 1, *scaling), weight.T) for part in parts])
    return float(F.cross_entropy(logits, targets)), float((logits.argmax(1) != targets).float().mean())


def choose(stages: Mapping[str, Tensor], labels: Tensor, classes: int, seed: int, decay: float | None = None) -> Choice:
    """The stage and the decay with the lowest loss on held-out pictures.

    Two views of each picture and `MOST` pictures are enough for that.

    Args:
        stages: features by stage, (N, V, D) each.
        seed: of which pictures are held out.
        decay: the only one to try.
    """
    groups = folds(labels.numpy(), seed)
    some = torch.from_numpy(np.flatnonzero(stream(seed, HOLD_OUT, 1).permutation(len(labels)) < MOST))
    labels, parts = labels[some], torch.from_numpy(groups)[some]
    held = range(FOLDS) if len(labels) <= FEW else range(1)
    decays = DECAYS if decay is None else (decay,)
    tried: list[tuple[str, float, float, float]] = []
    for stage, features in stages.items():
        seen = features[some][:, :: -(-features.shape[1] // VIEWS)]
        sums = {one: torch.zeros(2) for one in decays}
        for fold in held:
            out = parts == fold
            for one, measured in _held_out(seen[~out], labels[~out], seen[out], labels[out], classes, decays).items():
                sums[one] += torch.tensor(measured) * int(out.sum())
        count = sum(int((parts == fold).sum()) for fold in held)
        tried += [(stage, one, *(total / count).tolist()) for one, total in sums.items()]
    best = min(tried, key=lambda one: one[2])
    return Choice(*best, tried=tuple(tried))


def _held_out(
    features: Tensor, labels: Tensor, others: Tensor, theirs: Tensor, classes: int, decays: tuple[float, ...]
) -> dict[float, tuple[float, float]]:
    """Loss and error on other pictures, for each decay.

    The best weights are sums of the rows that they are fitted to, so the problem is solved in as
    many dimensions as there are rows, in which the rows are those of a triangle.
    """
    rows, views = features.flatten(0, 1), features.shape[1]
    mean, deviation = moments(rows)
    rows, other = ((part.float() - mean) / deviation for part in (rows, others.flatten(0, 1)))
    z, within = (rows, other) if len(rows) >= rows.shape[1] else _triangle(rows, other)
    targets = labels.repeat_interleave(views)
    weight, bias = torch.zeros(classes, z.shape[1]), torch.zeros(classes)
    measured = {}
    for decay in decays:
        _minimise(weight, bias, (z,), targets, (torch.zeros(1), 1.0), decay)
        head = Head(weight, bias, 0.0, 0.0)
        measured[decay] = head.losses(within.view(len(others), views, -1), theirs)
    return measured


def _triangle(rows: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a lower triangle with the scalar products of (n, D) rows, and (m, D) others beside
    them: (n, n) and (m, n)."""
    gram = (rows @ rows.T).double()
    more = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    triangle, failed = torch.linalg.cholesky_ex(gram + more)
    while failed:  # rows that are twice the same
        more = 10 * more
        triangle, failed = torch.linalg.cholesky_ex(gram + more)
    return triangle.float(), torch.linalg.solve_triangular(triangle, (rows @ other.T).double(), upper=False).T.float()


def folds(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Which of `FOLDS` parts each picture belongs to; each part has its share of every class."""
    order = stream(seed, HOLD_OUT).permutation(len(labels))
    part = np.empty(len(labels), np.int64)
    sorted_by_class = order[np.argsort(labels[order], kind="stable")]
    part[sorted_by_class] = np.arange(len(labels)) % FOLDS
    return part
