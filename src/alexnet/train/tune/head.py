"""A new last layer, fitted at once: multinomial logistic regression by L-BFGS.

    minimise over W, b:  mean over rows of -log softmax(W z + b)[class] + decay / 2 * |W|^2

z are the features that the network below gives, minus their mean, blurred over the places of a map
if that helps, and divided by one number, their deviation: `decay` then means the same for every
network and stage. All of it is folded into the layer's weight and bias, so the result is a layer
like any other. The problem is convex: the start does not matter, and there is no learning rate to
choose.

`choose` takes the decay, and the stage that the layer reads, by the loss on a part of the
training pictures that is held out for it. The test pictures are not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.loader import HOLD_OUT, stream
from alexnet.train.tune.features import TEN

#: Tried from the largest on; each starts where the one before ended.
DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
#: Up to so many pictures every fold is held out once, above it one is.
FOLDS, FEW = 5, 1000
MOST, VIEWS = 2000, 2
#: In places of a 6 x 6 map.
BLURS = (0.0, 1.2)
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
        size: mean squared norm of these rows, less their mean and blurred as in the fit.
    """

    weight: Tensor
    bias: Tensor
    loss: float = 0.0
    error: float = 0.0
    size: float = 1.0

    def on_pictures(self, features: Tensor, labels: Tensor) -> "Tested":
        """Loss and error of each picture, whose views' probabilities are averaged, as in a test:
        (N, V, D) features, (N,) labels.
        """
        shares = (features.float() @ self.weight.T + self.bias).softmax(2).mean(1)  # (N, K)
        right = shares[torch.arange(len(labels)), labels].clamp_min(1e-12)
        return Tested(-right.log(), shares.argmax(1) != labels)

    def on_views(self, features: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[float, float]:
        """Their mean loss and top-1 error."""
        return self.on_pictures(features, labels).means(1.0 if weights is None else weights[labels])

    def on_rows(self, rows: Tensor, labels: Tensor) -> tuple[float, float]:
        """The same on (n, D) rows, each by itself."""
        logits = torch.cat([torch.addmm(self.bias, part.float(), self.weight.T) for part in rows.split(ROWS_AT_ONCE)])
        return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) != labels).float().mean())


class Tested(NamedTuple):
    """What a last layer gives on pictures.

    Attributes:
        losses: (N,) float32.
        wrong: (N,) bool.
    """

    losses: Tensor
    wrong: Tensor

    def means(self, each: Tensor | float) -> tuple[float, float]:
        """Mean loss and top-1 error; `each` is what the pictures' losses are multiplied by."""
        return float((each * self.losses).mean()), float(self.wrong.float().mean())


class Parted(NamedTuple):
    """Training pictures, by number: those that a trial is fitted to, and those held out for it.

    Attributes:
        labels_of_held: (n,) int64.
    """

    used: Tensor
    held: Tensor
    labels_of_held: Tensor

    @classmethod
    def of(cls, labels: Tensor, seed: int) -> "Parted":
        """The first part that `choose` holds out, of as many pictures as it looks at."""
        some, out = _some(labels, seed), torch.from_numpy(folds(labels.numpy(), seed) == 0)
        held = some[out[some]]
        return cls(some[~out[some]], held, labels[held])


class Trial(NamedTuple):
    """What was tried for a last layer, and what held-out pictures say of it.

    Attributes:
        stage: that the layer reads.
        decay, blur: of its fit.
        loss, error: on the pictures held out.
    """

    stage: str
    decay: float
    blur: float
    loss: float
    error: float


class Choice(NamedTuple):
    """The best of all that was tried."""

    best: Trial
    tried: tuple[Trial, ...]


def fit(
    features: Tensor,
    labels: Tensor,
    classes: int,
    decay: float,
    blur: float = 0.0,
    side: int = 6,
    weights: Tensor | None = None,
) -> Head:
    """The best last layer.

    Args:
        features: (N, V, D) float: V views of N pictures.
        labels: (N,) int64.
        classes: K.
        decay: as in the formula above.
        blur: of pool5's maps, see `Scaling`; 0 for none.
        side: of these maps, in places.
        weights: (K,) what the pictures of each class weigh in the mean; all weigh 1 if None.
    """
    rows, targets = features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
    scaling = Scaling.of(rows, blur, side)
    weight, bias = torch.zeros(classes, rows.shape[1]), torch.zeros(classes)
    parts = [rows] if len(rows) > ROWS_AT_ONCE else [scaling(rows)]  # all of them would take too much memory in float32
    _minimise(weight, bias, parts[0], targets, scaling if len(rows) > ROWS_AT_ONCE else None, decay, weights)
    folded = scaling.folded(weight)
    head = Head(folded, bias - folded @ scaling.mean)
    loss, error = head.on_rows(rows, targets)
    return replace(head, loss=loss, error=error, size=scaling.deviation**2 * rows.shape[1])


@dataclass(frozen=True)
class Scaling:
    """From features to the z of the formula: a linear map, which is folded into the weights.

    pool5 has maps of a few places, and an object may be at any of them. Blurring each map before
    the fit makes weights of neighbouring places alike, as `decay` makes them small: a few hundred
    photos do not have every object at every place.

    Attributes:
        mean: (D,) float32, of each feature.
        deviation: one number for all.
        blur: (P, P) what maps are multiplied by from both sides; None for none.
    """

    mean: Tensor
    deviation: float
    blur: Tensor | None

    @classmethod
    def of(cls, rows: Tensor, blur: float, side: int) -> "Scaling":
        """For (n, D) features; `blur` is the deviation of a Gaussian, in places of a 6 x 6 map."""
        parts = rows.split(ROWS_AT_ONCE)
        mean = torch.stack([part.float().sum(0, dtype=torch.float64) for part in parts]).sum(0) / len(rows)
        scaling = cls(mean.float(), 1.0, _gaussian(blur * side / 6, side) if blur else None)
        square = sum(float(scaling(part).square().sum(dtype=torch.float64)) for part in parts)
        return replace(scaling, deviation=max((square / rows.numel()) ** 0.5, 1e-12))

    def __call__(self, rows: Tensor) -> Tensor:
        """(n, D) float32."""
        return self._blurred(rows.float() - self.mean) / self.deviation

    def folded(self, weight: Tensor) -> Tensor:
        """The weights that give on features what (K, D) ones give on z."""
        return self._blurred(weight) / self.deviation  # the map is its own transpose

    def _blurred(self, rows: Tensor) -> Tensor:
        if self.blur is None:
            return rows
        side = len(self.blur)
        return (self.blur @ rows.view(len(rows), -1, side, side) @ self.blur).reshape(len(rows), -1)


def _gaussian(blur: float, side: int) -> Tensor:
    places = torch.arange(float(side))
    return torch.exp(-((places[:, None] - places) ** 2) / (2 * blur**2))


def _minimise(
    weight: Tensor,
    bias: Tensor,
    rows: Tensor,
    targets: Tensor,
    scaling: Scaling | None,
    decay: float,
    weights: Tensor | None = None,
) -> None:
    """L-BFGS on weight and bias, in place; `scaling` gives z of the rows, which are z if None. At
    every step the weights and their gradient are blurred and divided, not the rows, which are many.
    """
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
        folded, slope = scaling.folded(weight) if scaling else weight, torch.zeros_like(weight)
        bias.grad = torch.zeros_like(bias)
        for part, labels in zip(rows.split(ROWS_AT_ONCE), targets.split(ROWS_AT_ONCE), strict=True):
            z = part.float() - scaling.mean if scaling else part  # before it is blurred and divided
            shares = torch.addmm(bias, z, folded.T).log_softmax(1)
            loss += float(F.nll_loss(shares, labels, weights, reduction="sum")) / len(targets)
            gradient = shares.exp_()
            gradient[torch.arange(len(labels)), labels] -= 1
            if weights is not None:
                gradient *= weights[labels, None]
            slope.addmm_(gradient.T, z, alpha=1 / len(targets))
            bias.grad += gradient.sum(0) / len(targets)
        weight.grad = decay * weight + (scaling.folded(slope) if scaling else slope)
        return loss

    with torch.no_grad():
        solver.step(closure)
    weight.grad = bias.grad = None


def choose(
    stages: Mapping[str, Tensor],
    labels: Tensor,
    seed: int,
    decay: float | None = None,
    blur: float | None = None,
    side: int = 6,
    weights: Tensor | None = None,
) -> Choice:
    """The stage, the decay and the blur with the lowest loss on held-out pictures.

    Two views of each picture and `MOST` pictures are enough for that.

    Args:
        stages: features by stage, (N, V, D) each.
        seed: of which pictures are held out.
        decay, blur: the only ones to try.
        side: of pool5's maps, in places.
        weights: (K,) of each class, as in `fit`.
    """
    some = _some(labels, seed)
    parts, labels = torch.from_numpy(folds(labels.numpy(), seed))[some], labels[some]
    held = range(min(FOLDS, len(labels))) if len(labels) <= FEW else range(1)
    decays = DECAYS if decay is None else (decay,)
    tried: list[Trial] = []
    for stage, features in stages.items():
        seen = features[some][:, :TEN]
        seen = seen[:, :: -(-seen.shape[1] // VIEWS)]
        blurs = (BLURS if stage == "pool5" and side > 1 else (0.0,)) if blur is None else (blur,)
        for one in blurs:
            sums = dict.fromkeys(decays, torch.zeros(2))
            for fold in held:
                out = parts == fold
                parted = seen[~out], labels[~out], seen[out], labels[out]
                measured = _held_out(*parted, decays, (one, side), weights)
                sums = {each: sums[each] + torch.tensor(values) * int(out.sum()) for each, values in measured.items()}
            count = sum(int((parts == fold).sum()) for fold in held)
            tried += [Trial(stage, each, one, *(total / count).tolist()) for each, total in sums.items()]
    return Choice(min(tried, key=lambda trial: trial.loss), tuple(tried))


def _held_out(
    features: Tensor,
    labels: Tensor,
    others: Tensor,
    theirs: Tensor,
    decays: tuple[float, ...],
    blur: tuple[float, int],
    weights: Tensor | None = None,
) -> dict[float, tuple[float, float]]:
    """Loss and error on other pictures, for each decay; `blur` has the side of the maps with it.

    The best weights are sums of the rows that they are fitted to, so the problem is solved in as
    many dimensions as there are rows, in which the rows are those of a triangle.
    """
    rows, views = features.flatten(0, 1), features.shape[1]
    scaling, classes = Scaling.of(rows, *blur), int(max(labels.max(), theirs.max())) + 1
    weights = None if weights is None else weights[:classes]
    rows, other = scaling(rows), scaling(others.flatten(0, 1))
    z, within = (rows, other) if len(rows) >= rows.shape[1] else _triangle(rows, other)
    targets = labels.repeat_interleave(views)
    weight, bias = torch.zeros(classes, z.shape[1]), torch.zeros(classes)
    measured = {}
    for decay in decays:
        _minimise(weight, bias, z, targets, None, decay, weights)
        measured[decay] = Head(weight, bias).on_views(within.view(len(others), views, -1), theirs, weights)
    return measured


def _triangle(rows: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a lower triangle with the scalar products of (n, D) rows, and (m, D) others beside
    them: (n, n) and (m, n)."""
    gram = (rows @ rows.T).double()
    more = 1e-6 * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=torch.float64)
    triangle, failed = torch.linalg.cholesky_ex(gram + more)
    while failed:  # rows that are twice the same
        more = 10 * more
        triangle, failed = torch.linalg.cholesky_ex(gram + more)
    return triangle.float(), torch.linalg.solve_triangular(triangle, (rows @ other.T).double(), upper=False).T.float()


def _some(labels: Tensor, seed: int) -> Tensor:
    """`MOST` pictures, rising."""
    return torch.from_numpy(np.flatnonzero(stream(seed, HOLD_OUT, 1).permutation(len(labels)) < MOST))


def folds(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Which of `FOLDS` parts each picture belongs to; each part has its share of every class."""
    order = stream(seed, HOLD_OUT).permutation(len(labels))
    part = np.empty(len(labels), np.int64)
    sorted_by_class = order[np.argsort(labels[order], kind="stable")]
    part[sorted_by_class] = np.arange(len(labels)) % FOLDS
    return part
