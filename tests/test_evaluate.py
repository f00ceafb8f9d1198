"""Errors and confusion, against counting by hand."""

import tarfile
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from alexnet import AlexNet, engines
from alexnet.cli import main
from alexnet.data.feed import kept
from alexnet.data.prepare import prepare
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Split, Store
from alexnet.engines import Classifier
from alexnet.ensemble import evaluate_average
from alexnet.errors import CheckpointError, StoreError, UsageError
from alexnet.evaluate import Evaluation, evaluate, evaluate_classifier, outputs_of, probabilities
from alexnet.published import imagenet
from alexnet.trained import Trained
from alexnet.variants import get_variant

CLASSES = tuple("abcdefg")


class Fixed(nn.Module):
    """Scores that depend on the record's first pixel only: row `pixel` of a table."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores[x[:, 0, 0, 0].round().long()]


def plain(size: int = 2) -> Preprocessing:
    return Preprocessing(size, size, "short-side", False, torch.zeros(3, 1, 1), torch.ones(3))


def test_against_counting(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count, k = 300, len(CLASSES)
    scores = rng.normal(size=(256, k))
    labels = rng.integers(0, k, count).astype(np.int32)
    records = np.full((count, 6), 128, np.uint8)
    records[:, :4] = rng.integers(0, 256, (count, 1))  # grey: Y of all four pixels
    result = evaluate(Fixed(torch.from_numpy(scores)), plain(), Split("val", records, labels, tmp_path), CLASSES)
    order = np.argsort(-scores[records[:, 0]], axis=1)
    assert result.images == count
    assert result.top1_error == pytest.approx((order[:, 0] != labels).mean())
    assert result.top5_error == pytest.approx((order[:, :5] != labels[:, None]).all(axis=1).mean())
    for true in range(k):
        for predicted in range(k):
            assert result.confusion[true, predicted] == ((labels == true) & (order[:, 0] == predicted)).sum()
    rows = result.as_json()["per_class"]
    assert sum(row["images"] for row in rows) == count
    assert rows[2]["top1_error"] == pytest.approx((order[labels == 2, 0] != 2).mean())
    assert rows[2]["top5_error"] == pytest.approx((order[labels == 2, :5] != 2).all(axis=1).mean())


def test_a_class_without_pictures() -> None:
    result = Evaluation(("a", "b"), 1, np.array([[3, 1], [0, 0]]), np.array([4, 0]))
    missing = {"top1_error": None, "top1_interval": None, "top5_error": None}
    assert result.as_json()["per_class"][1] == {"class": "b", "images": 0, **missing}
    assert (result.top1_error, result.top5_error) == (0.25, 0.0)


def test_ten_views_average_probabilities_not_logits(store: Store) -> None:
    variant = get_variant("paper", width=1 / 16, input_size=64, num_classes=3, init="he", pixels="unit")
    model, preprocessing = AlexNet(variant, torch.Generator().manual_seed(0)).eval(), Preprocessing.of(variant, store)
    with torch.no_grad():
        model.fc8.weight.mul_(1000)  # so that the views differ, and averaging logits would give something else
    records = torch.from_numpy(np.array(store.held_out.records[:5]))
    by_view = [model(preprocessing.view(records, *view)).detach() for view in preprocessing.views(10)]
    expected = torch.stack([logits.softmax(1) for logits in by_view]).mean(0)
    torch.testing.assert_close(probabilities(model, preprocessing, records, 10), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(expected, torch.stack(by_view).mean(0).softmax(1), atol=1e-3)


def classifier(store: Store) -> Classifier:
    variant = get_variant("paper", width=1 / 16, input_size=64, num_classes=3)
    model = AlexNet(variant, torch.Generator().manual_seed(0)).eval()
    return engines.of(Trained(model, store.classes, Preprocessing.of(variant, store), {}, {}))


def test_other_classes_are_refused(store: Store) -> None:
    own = replace(classifier(store), classes=("blue", "green", "mauve"))
    with pytest.raises(CheckpointError, match=r"other classes.*differing: 'red'"):
        evaluate_classifier(own, store)


def test_other_classes_are_refused_before_resampling(tmp_path: Path, photos: Callable[..., Path]) -> None:
    """Nothing is written, and the message names the store that was typed."""
    larger = prepare([photos(4)], tmp_path / "larger", size=96)
    fits = classifier(larger)
    assert fits.preprocessing.stored_size == 96
    small = replace(fits.preprocessing, stored_size=72)
    one = replace(fits, classes=("blue", "green", "mauve"), preprocessing=small)
    tests: list[Callable[[], Any]] = [lambda: evaluate_classifier(one, larger), lambda: evaluate_average([one, one], larger)]
    for test in tests:
        with pytest.raises(CheckpointError, match=rf"{larger.given} has other classes"):
            test()
    assert not (tmp_path / "larger" / "72px").exists()
    assert evaluate_classifier(replace(fits, preprocessing=small), larger).images and (tmp_path / "larger" / "72px").exists()


def test_classes_are_matched_by_name(store: Store) -> None:
    """A network with the same classes in another order, and one with more of them, say
    the same about the store.
    """
    own = classifier(store)
    expected = evaluate_classifier(own, store)
    order = [2, 0, 1]
    turned = replace(own, classes=tuple(own.classes[i] for i in order), network=lambda x: own.network(x)[:, order])
    more = replace(
        own, classes=("mauve", *own.classes), network=lambda x: torch.cat([torch.full((len(x), 1), -99.0), own.network(x)], 1)
    )
    assert evaluate_classifier(turned, store).top1_error == expected.top1_error
    assert np.array_equal(evaluate_classifier(more, store).confusion[1:, 1:], expected.confusion)


@pytest.mark.parametrize("case", ["01-equal-names", "01-latin1-folders"])
def test_training_evaluation_and_verification_agree(
    shared: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes whose names are equal, or look it: 0.00 % everywhere."""
    source, store, run = shared / "cases" / case, tmp_path / "store", tmp_path / "run"
    if not source.exists():
        with tarfile.open(shared / "cases" / f"{case}.tar.gz") as tar:
            tar.extractall(tmp_path, filter="data")
        source = tmp_path / "photos"
    main(["prepare", str(source), str(store), "--size", "72"])
    main(
        [
            "train",
            "laptop",
            "--data",
            str(store),
            "--out",
            str(run),
            "--width",
            "0.25",
            "--epochs",
            "30",
            "--batch-size",
            "6",
            "--compile",
            "off",
            "--lr",
            "0.01",
            "--device",
            "cpu",
        ]
    )
    assert "held-out top-1 error 0.00%" in "".join(capsys.readouterr())
    main(["evaluate", str(run), "--data", str(store)])
    assert "0.00%" in capsys.readouterr().out.splitlines()[-2]
    main(["verify", str(run)])
    assert "top-1 error 0.00%" in capsys.readouterr().out


def named(store: Store, *classes: str) -> Store:
    """The store with other class names."""
    other = Store(store.folder)
    other.classes = classes
    return other


def test_a_class_is_its_number(store: Store) -> None:
    """Two classes of one name, as in stores of earlier versions: the result is what it
    is with names that differ.
    """
    own = classifier(store)
    expected = evaluate_classifier(own, store)
    equal = "crane", "crane", "caf\ufffd"
    result = evaluate_classifier(replace(own, classes=equal), named(store, *equal))
    assert np.array_equal(result.confusion, expected.confusion)
    assert [row["class"] for row in result.as_json()["per_class"]] == [*equal]


@pytest.mark.parametrize(
    ("network", "store_has"),
    [
        (("crane", "crane", "red"), ("crane", "red")),
        (("crane", "red", "crane"), ("red", "crane", "crane")),
        (("a", "crane", "red"), ("crane", "red", "crane")),
    ],
    ids=["fewer", "other order", "twice in the store"],
)
def test_a_name_that_means_two_classes_is_refused(store: Store, network: tuple[str, ...], store_has: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"several have the name 'crane', so they cannot be matched by name"):
        outputs_of(network, named(store, *store_has))


def test_names_that_occur_twice_elsewhere_do_not_matter(store: Store) -> None:
    assert outputs_of(("crane", "red", "crane", "blue"), named(store, "blue", "red")).tolist() == [3, 1]


def test_composed_and_decomposed_letters_are_one_name(store: Store) -> None:
    """macOS writes é as two characters."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert outputs_of((composed, "a", "b"), named(store, "a", decomposed)).tolist() == [1, 0]
    assert outputs_of((decomposed, "a", "b"), named(store, decomposed, "a", "b")).tolist() == [0, 1, 2]


def test_wordnet_ids_mean_imagenets_classes(store: Store) -> None:
    """Of a store, of a network, or of both."""
    ids, words = ("n01440764", "n02123045", "n15075141"), ("tench", "tabby", "toilet tissue")
    assert outputs_of(imagenet.classes(), named(store, *ids)).tolist() == [0, 281, 999]
    assert outputs_of(ids[::-1], named(store, *words)).tolist() == [2, 1, 0]
    assert outputs_of(words[::-1], named(store, *ids)).tolist() == [2, 1, 0]
    with pytest.raises(CheckpointError, match="differing: 'n01440764'"):
        outputs_of(imagenet.classes(), named(store, "n01440764", "cat"))


def test_other_records_are_refused(store: Store) -> None:
    own = classifier(store)
    other = replace(own, preprocessing=replace(own.preprocessing, resize="squash"))
    with pytest.raises(
        CheckpointError, match=r"resize rule short-side, but the network was trained with squash.*--resize squash"
    ):
        evaluate_classifier(other, store)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store": "store"}, r"store \(='store'\) must be a Store"),
        ({"store": None}, r"store \(=None\) must be a Store"),
        ({"classifier": "run"}, r"classifier \(='run'\) must be a Classifier"),
        ({"views": 3}, r"views \(=3\) must be 1 or 10"),
        ({"views": "10"}, r"views \(='10'\) must be 1 or 10"),
        ({"views": True}, r"views \(=True\) must be 1 or 10"),
        ({"split": ["val"]}, r"has no split \['val'\]"),
        ({"split": 7}, r"has no split 7: it has train, val"),
    ],
)
def test_arguments_of_other_types(store: Store, changes: dict[str, Any], message: str) -> None:
    given = {"classifier": classifier(store), "store": store, **changes}
    with pytest.raises((CheckpointError, StoreError, UsageError), match=message):
        evaluate_classifier(**given)


def test_named_split(store: Store) -> None:
    assert evaluate_classifier(classifier(store), store, "train").images == 60
    assert evaluate_classifier(classifier(store), store).images == 18


def test_batches_that_lie_ready(store: Store) -> None:
    """Taken in place of the store's files, in batches of another size, they give the same
    counts.
    """
    net = AlexNet(get_variant("paper", width=1 / 8, input_size=64, num_classes=3)).eval()
    preprocessing = Preprocessing.of(net.variant, store)
    plain = evaluate(net, preprocessing, store.held_out, store.classes)
    ready = kept(store.held_out, torch.device("cpu"))
    found = evaluate(net, preprocessing, store.held_out, store.classes, batches=[*ready])
    assert np.array_equal(found.confusion, plain.confusion) and np.array_equal(found.in_top5, plain.in_top5)
    assert sum(len(batch.labels) for batch in ready) == found.images == len(store.held_out)


def test_interval_and_chance() -> None:
    """Of 9, 30 and 3 pictures, 2, 6 and 3 are wrong: as SciPy's
    binomtest(11, 42).proportion_ci(method="wilson") says.
    """
    result = Evaluation(("a", "b", "c"), 1, np.array([[7, 1, 1], [6, 24, 0], [2, 1, 0]]), np.array([9, 30, 3]))
    assert result.wrong == 11 and result.top1_error == pytest.approx(11 / 42)
    assert result.interval == pytest.approx((0.15302640, 0.41068731), abs=1e-8)
    assert result.chance == pytest.approx(12 / 42)
    assert not result.has_top5
    assert Evaluation(tuple("abcdef"), 1, np.eye(6, dtype=np.int64), np.ones(6, np.int64)).has_top5
    content = result.as_json()
    assert tuple(content["top1_interval"]) == result.interval and content["chance"] == result.chance
    assert content["top5_error"] == 0
