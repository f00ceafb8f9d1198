"""The GPU's step on a CPU, where its kernels are their reference: it is the training
that the plain step does.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.data.augment import Augmentation
from alexnet.data.chance import Chance
from alexnet.data.feed import ChoiceTable, Storage, open_feed
from alexnet.data.loader import Loader
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.model import AlexNet
from alexnet.train.optim import SGD
from alexnet.train.steps.fused import FusedStep, _in_order_of
from alexnet.variants import get_variant

CPU = torch.device("cpu")
BATCH = 10


class Scene:
    """A small network, its optimiser and its data; the same for the same arguments."""

    def __init__(self, store: Store, name: str = "paper", dtype: torch.dtype = torch.float64, nesterov: bool = False) -> None:
        variant = get_variant(name, width=1 / 8, input_size=67, num_classes=3, init="he", pixels="unit")
        self.model = AlexNet(variant, torch.Generator().manual_seed(1)).to(dtype).to(memory_format=torch.channels_last)
        self.loader = Loader(store.train, BATCH, seed=5)
        self.augmentation = Augmentation.of(Preprocessing.of(variant, store), store, True, True, 0.1)
        self.optimiser = SGD(self.model, 0.9, 5e-4, variant, nesterov)

    def fused(self, place: Storage = "resident", dtype: torch.dtype = torch.float64, rows: int = 256) -> FusedStep:
        feed = open_feed(place, self.loader, CPU)
        choices = ChoiceTable(feed, self.augmentation, self.model.dropouts, CPU, rows)
        return FusedStep(self.model, self.augmentation.preprocessing, self.optimiser, feed, choices, dtype)

    def plain_step(self, epoch: int, step: int, lr: float, scale: float) -> float:
        """The reference: this network walked plainly."""
        records, labels = self.loader.batch(epoch, step)
        pictures, chance = self.loader.indices(epoch, step), Chance(5, epoch)
        x = self.augmentation(records, pictures, chance).to(self.model.conv1.weight.dtype)
        loss = F.cross_entropy(self.model(x, torch.from_numpy(chance.dropout_keys(pictures, self.model.dropouts))), labels)
        loss.backward()
        self.optimiser.step(lr, scale)
        return float(loss.detach())


def run(fused: FusedStep, steps: int, start: int = 0, lr: float = 0.005) -> list[float]:
    """The loss of each step; the rate is a tenth from step 12 on."""
    losses = []
    for number in range(start, steps):
        fused.take(*divmod(number, fused.feed.loader.steps_per_epoch), lr, 0.1 if number >= 12 else 1.0)
        losses.append(fused.collect()[0])
    fused.close()
    return losses


@pytest.mark.parametrize(
    ("name", "nesterov"), [("paper", False), ("code-2012", False), ("caffe", False), ("torchvision", False), ("paper", True)]
)
def test_twenty_steps_are_the_plain_ones(store: Store, name: str, nesterov: bool) -> None:
    """In float64, over three epochs and a drop of the learning rate: every loss to
    1e-9, all weights to 1e-9.
    """
    scene, reference = Scene(store, name, nesterov=nesterov), Scene(store, name, nesterov=nesterov)
    expected = [reference.plain_step(*divmod(n, 6), 0.005, 0.1 if n >= 12 else 1.0) for n in range(20)]
    assert run(scene.fused(), 20) == pytest.approx(expected, rel=1e-9)
    assert expected[-1] < expected[0]
    for one, other in zip(scene.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_bfloat16_learns_as_float64(store: Store) -> None:
    """Twenty steps: the mean loss of the last eight within 5 %; the masters stay float32, and the
    copies are their rounding.
    """
    exact, scene = Scene(store), Scene(store, dtype=torch.float32)
    fused = scene.fused(dtype=torch.bfloat16)
    expected, found = run(exact.fused(), 20), run(fused, 20)
    assert np.mean(found[12:]) == pytest.approx(np.mean(expected[12:]), rel=0.05)
    assert fused.leaves["fc8.weight"] is scene.model.fc8.weight and fused.leaves["conv2.bias"] is scene.model.conv2.bias
    for name in ("conv1.weight", "fc6.weight", "fc7.bias"):
        master = scene.model.get_parameter(name)
        assert master.dtype == torch.float32 and torch.equal(fused.leaves[name], master.bfloat16())


@pytest.mark.parametrize("place", ["pinned", "disk"])
def test_the_three_places_give_the_same_bits(store: Store, place: Storage) -> None:
    one, other = Scene(store, dtype=torch.float32), Scene(store, dtype=torch.float32)
    assert run(one.fused("resident", torch.float32), 14) == run(other.fused(place, torch.float32), 14)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


@pytest.mark.parametrize("after", [1, 3, 6, 8])
def test_resumed_anywhere(store: Store, after: int) -> None:
    """A step taken by a new object, from the weights and velocity alone, is the step that the old
    one would have taken.
    """
    whole, first = Scene(store, dtype=torch.float32), Scene(store, dtype=torch.float32)
    losses = run(whole.fused(dtype=torch.float32, rows=4), 14)
    start = run(first.fused(dtype=torch.float32), after)
    second = Scene(store, dtype=torch.float32)
    second.model.load_state_dict(first.model.state_dict())
    second.optimiser.load(first.optimiser.state())
    assert start + run(second.fused("disk", torch.float32, rows=3), 14, after) == losses


def test_a_look_changes_nothing_and_sees_the_gradients(store: Store) -> None:
    scene, reference = Scene(store), Scene(store)
    fused, seen = scene.fused(), []
    fused.take(0, 0, 0.02, 1.0, look=lambda _: seen.append({n: p.grad.clone() for n, p in scene.model.named_parameters()}))
    reference.fused().take(0, 0, 0.02, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(scene.model.parameters(), reference.model.parameters(), strict=True))
    assert all(p.grad is None for p in scene.model.parameters())
    for name, velocity in scene.optimiser.velocity.items():
        assert float(seen[0][name].norm()) > 0 and velocity.shape == seen[0][name].shape
    assert torch.equal(scene.optimiser.velocity["fc8.bias"].sign(), -seen[0]["fc8.bias"].sign())  # no weight decay on zeros


@pytest.mark.parametrize("place", ["resident", "disk"])
def test_pictures_are_the_last_steps(store: Store, place: Storage) -> None:
    scene = Scene(store)
    fused = scene.fused(place, rows=2)
    for step in (3, 4):
        fused.take(1, step, 0.005, 1.0)
    records, _ = scene.loader.batch(1, 4)
    expected = scene.augmentation(records, scene.loader.indices(1, 4), Chance(5, 1))
    assert torch.equal(fused.pictures(3), expected[:3])
    fused.close()


def test_gradients_come_in_the_order_of_their_weights() -> None:
    """As the update of all parameters in one launch needs them; values stay."""
    weight = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(4, 3, 5, 5).bfloat16()
    found = _in_order_of(weight, gradient)
    assert found.stride() == weight.stride() and torch.equal(found, gradient)
    assert _in_order_of(weight, found) is found


def test_counts(store: Store, tmp_path: Path) -> None:
    """`collect` counts what was wrong since the last call."""
    scene = Scene(store)
    fused = scene.fused()
    with torch.no_grad():
        scene.model.fc8.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    wrong = sum(int((scene.loader.batch(0, step).labels != 1).sum()) for step in (0, 1))
    fused.take(0, 0, 1e-9, 1.0)
    fused.take(0, 1, 1e-9, 1.0)
    assert fused.collect()[1:] == (wrong, 2)
    assert fused.collect() == (0.0, 0, 0)
    fused.close()
