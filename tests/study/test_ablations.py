"""The ablations: what each changes, against counts by hand; pairs from end to
end; what is told of them.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet import AlexNet, engines, variants
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.ensemble import evaluate_average
from alexnet.errors import Interrupted, RecipeError, TrainingError
from alexnet.evaluate import evaluate_classifier
from alexnet.run_folder import read_log
from alexnet.study import ablate as ablating
from alexnet.study import ablations
from alexnet.study.ablate import Outcome, Plan, ablate, epochs_to
from alexnet.study.ablations import ABLATIONS, sides, what_changes
from alexnet.study.record import tell, write_ablation
from alexnet.train import recipes
from alexnet.train.optim import SGD
from alexnet.train.recipes import Recipe
from alexnet.variants import Variant
from alexnet.weights import native
from stopping import stop_after

SMALL: dict[str, Any] = {"width": 1 / 8, "epochs": 2, "batch_size": 10, "lr": 0.01, "compile": "off", "device": "cpu"}


def recipe(**changes: Any) -> Recipe:
    return recipes.get_recipe("laptop", **{**SMALL, **changes})


def changed(name: str, **changes: Any) -> Variant:
    """The changed network of an ablation of `paper` at full size, with 1000 classes."""
    return sides(ABLATIONS[name], Recipe(**changes))[1].network(1000)


# --- what changes ---------------------------------------------------------------------------------

PARAMETERS = {
    # paper: 60,965,224. conv2 sees 96 maps instead of 48, and so on: 48*(11*11*3)+48,
    # 128*(25*48)+128, 192*(9*128)+192, 192*(9*192)+192, 256*(9*192)+256, then as before.
    "one-tower": 17_472 + 153_728 + 221_376 + 331_968 + 442_624 + 37_752_832 + 16_781_312 + 4_097_000,
    "never-talk": 60_965_224 - 384 * 9 * 128,  # conv3 reads 128 maps instead of 256
    "no-conv2": 60_965_224 - 307_456 - 384 * 9 * (256 - 96),  # conv3 reads conv1's 96
    "no-conv3": 60_965_224 - 885_120 + 384 * 9 * (256 - 192),  # conv4 reads both towers: conv2's 256 instead of 192
    "no-conv4": 60_965_224 - 663_936,  # conv5 reads 192 maps as before
    "no-conv5": 60_965_224 - 442_624 + 4096 * 36 * (384 - 256),
    "no-fc6": 60_965_224 - 37_752_832 + 4096 * (9216 - 4096),
    "no-fc7": 60_965_224 - 16_781_312,
    "tanh": 60_965_224,
    "no-lrn": 60_965_224,
    "non-overlapping": 60_965_224,
}


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters(name: str, parameters: int) -> None:
    network = changed(name)
    assert network.parameters == parameters
    assert network.layers()[-1].output == (1000,)


@pytest.mark.parametrize("variant", variants.named())
def test_every_network_runs(variant: str) -> None:
    """Each ablation that applies gives a network that keeps the heights, and has the other
    layers' parameters by name.
    """
    start = Recipe(variant=variant, width=1 / 8, input_size=67)
    expected = set(AlexNet(start.network(5)).state_dict())
    for name, ablation in ABLATIONS.items():
        try:
            network = sides(ablation, start)[1].network(5)
        except RecipeError as error:
            if name == "text-start" and variant == "paper":
                continue  # that is how it starts
            assert (
                "does not apply" if variant != "torchvision" or name != "non-overlapping" else "shape 8 7 7 on the standard"
            ) in str(error)
            assert variant in ("owt", "torchvision"), (variant, name)
            continue
        net = AlexNet(network).eval()
        assert net(torch.zeros(2, 3, 67, 67)).shape == (2, 5)
        gone = {f"{layer}.{kind}" for layer in network.removed for kind in ("weight", "bias")}
        assert set(net.state_dict()) == expected - gone


def test_pooling_without_overlap_keeps_the_shapes() -> None:
    """27, 13 and 6, as with overlap (section 3.4), and windows that share no pixel."""
    network = changed("non-overlapping")
    assert [layer.output[1] for layer in network.layers() if layer.name.startswith("pool")] == [27, 13, 6]
    with pytest.raises(
        RecipeError,
        match=r"input_size \(=100\) gives pool1 shape 96 11 11 on the standard side and 96 12 12.*--input-size 128 ",
    ):
        sides(ABLATIONS["non-overlapping"], Recipe(input_size=100))
    assert sides(ABLATIONS["non-overlapping"], Recipe(input_size=128))


@pytest.mark.parametrize(("one", "other"), [("no-conv3", "no-conv4"), ("no-fc6", "no-fc7")])
def test_two_pairs_are_the_same_network(one: str, other: str) -> None:
    """As the module says: the same layers of the same shapes, under other names."""
    layers = [[(type(layer.op), layer.output, layer.parameters) for layer in changed(name).layers()] for name in (one, other)]
    assert layers[0] == layers[1]


def test_tanh_is_tanh() -> None:
    net = AlexNet(changed("tanh", width=1 / 8, input_size=64)).eval()
    stages = net.stages(torch.randn(2, 3, 64, 64) * 50)
    assert not [name for name in stages if name.startswith("relu")]
    for layer in (1, 2, 3, 4, 5):
        torch.testing.assert_close(stages[f"tanh{layer}"], torch.tanh(stages[f"conv{layer}"]), rtol=0, atol=0)


def test_no_lrn_leaves_the_rest() -> None:
    assert [op.name for op in changed("no-lrn", variant="code-2012").ops()][:9] == [
        "conv1",
        "pool1",
        "relu1",
        "conv2",
        "relu2",
        "rnorm2",
        "pool2",
        "conv3",
        "relu3",
    ]


def depends_on_the_other_tower(network: Variant) -> dict[str, bool]:
    """Whether the first half of each stage changes if the second half of conv1's kernels do."""
    net = AlexNet(replace(network, init="he"), torch.Generator().manual_seed(0)).eval()
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = net.stages(picture)
    with torch.no_grad():
        net.conv1.weight[len(net.conv1.weight) // 2 :] += 0.3
    after = net.stages(picture)
    halves = {name: value.shape[1] // 2 for name, value in before.items() if name in net.state_dict_layers}
    return {name: not torch.equal(before[name][:, :half], after[name][:, :half]) for name, half in halves.items()}


@pytest.mark.parametrize(
    ("name", "meeting"), [("tanh", "conv3"), ("never-talk", "fc6"), ("no-conv3", "conv4"), ("no-conv4", "conv3")]
)
def test_where_the_towers_meet(name: str, meeting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the layer that reads both, and from there on. LRN across
    the seam is kept out of it.
    """
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6")
    monkeypatch.setattr(AlexNet, "state_dict_layers", layers, raising=False)
    network = replace(changed(name, width=1 / 8, input_size=64), lrn_window="tower")
    depends = depends_on_the_other_tower(network)
    assert depends == {layer: layer >= meeting for layer in layers if layer not in network.removed}


def test_removed_layers_survive_a_checkpoint(store: Store, tmp_path: Path) -> None:
    network = replace(changed("no-conv3", width=1 / 8, input_size=64), num_classes=3)
    trained = native.Trained(AlexNet(network).eval(), store.classes, Preprocessing.of(network, store), {}, {})
    native.save(tmp_path / "x.safetensors", trained)
    assert native.load(tmp_path / "x.safetensors").model.variant == network


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"removed": ("conv1",)}, r"removed \(=conv1\): what can be left out is conv2, "),
        ({"removed": ("fc8",)}, "what can be left out"),
        ({"sees_both_towers": (False, False, True, False, False)}, "the first of them True"),
        ({"sees_both_towers": (True, True)}, "must be a tuple of 5, each True or False"),
        ({"pool_size": 0}, r"pool_size \(=0\) must be from 1 to 16"),
    ],
)
def test_impossible_networks(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(**changes)


# --- what is asked --------------------------------------------------------------------------------


def test_the_paper_s_numbers() -> None:
    """Section 4 of the facts, in points; a thing that was taken away raises the error."""
    points = {name: ablation.points for name, ablation in ABLATIONS.items() if ablation.points != (None, None)}
    assert points == {
        "no-lrn": (1.4, 1.2),
        "non-overlapping": (0.4, 0.3),
        "one-tower": (1.7, 1.2),
        "never-talk": (1.2, 1.1),
        "no-colour-noise": (1.0, None),
        "no-conv2": (2.0, None),
        "no-conv3": (2.0, None),
        "no-conv4": (2.0, None),
        "ten-views": (-1.5, -1.3),
        "five-nets": (-2.6, -1.8),
    }


def test_what_changes() -> None:
    small = recipes.get_recipe("small-photos")
    told = {name: what_changes(*sides(ablation, small)) for name, ablation in ABLATIONS.items() if name != "text-start"}
    assert told["tanh"] == ["activation: relu → tanh"]
    assert told["no-dropout"] == ["dropout: 0.5 → 0.0"]
    assert told["no-augmentation"] == ["crop: True → False", "mirror: True → False", "colour-noise: 0.1 → 0.0"]
    assert told["one-tower"] == ["kernels: 96 256 384 384 256 → 48 128 192 192 256", "towers: 2 → 1"]
    assert told["no-fc6"] == ["removed: none → fc6"]
    assert told["ten-views"] == []
    start = what_changes(*sides(ABLATIONS["text-start"], recipes.get_recipe("paper-2012")))
    assert start == ["init-std: 0.01 0.01 0.03 0.03 0.03 0.01 0.01 0.01 → 0.01 0.01 0.01 0.01 0.01 0.01 0.01 0.01"]
    apart = replace(small, sees_both_towers=(True, False, False, False, False))  # conv4 does not take over what conv3 has not
    assert what_changes(*sides(ABLATIONS["no-conv3"], apart)) == ["removed: none → conv3"]
    assert what_changes(*sides(ABLATIONS["tanh"], small, 0.003)) == ["activation: relu → tanh", "lr: 0.01 → 0.003"]
    assert all(sides(ABLATIONS["tanh"], small)[side].weight_decay == 0 for side in (0, 1))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("no-lrn", {"variant": "torchvision"}),
        ("one-tower", {"variant": "owt"}),
        ("never-talk", {"variant": "torchvision"}),
        ("never-talk", {"sees_both_towers": (True, False, False, False, False)}),
        ("no-dropout", {"dropout": 0.0}),
        ("no-augmentation", {"crop": False, "mirror": False, "colour_noise": 0.0}),
        ("no-colour-noise", {"colour_noise": 0.0}),
        ("tanh", {"activation": "tanh"}),
        ("non-overlapping", {"pool_size": 2}),
        ("no-conv3", {"removed": ("conv3",)}),
        ("text-start", {}),
        ("text-start", {"init": "gaussian"}),
    ],
)
def test_does_not_apply(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=rf"{name} does not apply to variant .*: it needs .*same network twice"):
        Plan(ablation=ABLATIONS[name], recipe=recipes.get_recipe("small-photos", **changes), seeds=2)


def test_impossible_plans(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown ablation 'no-lnr': did you mean 'no-lrn'"):
        ablations.get_ablation("no-lnr")
    with pytest.raises(RecipeError, match=r"seeds \(=0\) must be at least 1"):
        Plan(ablation=ABLATIONS["no-lrn"], recipe=recipe(), seeds=0)
    with pytest.raises(RecipeError, match=r"seeds \(=4\) must be at least 5: each 5 networks give one comparison"):
        Plan(ablation=ABLATIONS["five-nets"], recipe=recipe(), seeds=4)
    with pytest.raises(RecipeError, match=r"training_error \(=1\) must be between"):
        Plan(ablation=ABLATIONS["tanh"], recipe=recipe(), seeds=1, training_error=1.0)
    with pytest.raises(RecipeError, match=r"other_lr \(=0.1\) has no effect"):
        Plan(ablation=ABLATIONS["ten-views"], recipe=recipe(), seeds=1, other_lr=0.1)
    with pytest.raises(RecipeError, match=r"have 72 pixels, the net takes 72.*larger --size"):
        ablate(Plan(ablation=ABLATIONS["ten-views"], recipe=recipe(input_size=72), seeds=1), store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- measuring ------------------------------------------------------------------------------------


def made_log(errors: list[float], steps: int = 10) -> list[dict[str, Any]]:
    """A line every `steps` steps, two lines an epoch."""
    lines: list[dict[str, Any]] = []
    for number, error in enumerate(errors, 1):
        lines.append({"kind": "train", "step": number * steps, "top1_error": error})
        lines.append({"kind": "warning", "step": number * steps})
        if number % 2 == 0:
            lines.append({"kind": "val", "step": number * steps, "epoch": number // 2, "top1_error": 0.0})
    return lines


def test_epochs_to() -> None:
    """Errors falling by 0.1 a line, at epochs 0.25, 0.75, 1.25 ...: a mean of three
    neighbours lies on the same line.
    """
    log = made_log([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert epochs_to(0.6, log) == pytest.approx(1.75)
    assert epochs_to(0.65, log) == pytest.approx(1.5)
    assert epochs_to(0.95, log) == pytest.approx(0.75)  # below from the first mean on
    assert epochs_to(0.45, log) == np.inf  # the last mean is 0.5
    # The means: 0.4 at 0.75, 0.4, 0.3, 0.8 / 3 at 2.25, 0.4 / 3 at 2.75; 0.25 lies an eighth of the
    # way between the last two.
    assert epochs_to(0.25, made_log([0.5, 0.5, 0.2, 0.5, 0.1, 0.2, 0.1, 0.1])) == pytest.approx(2.25 + 0.5 / 8)


def test_one_lucky_line_is_not_enough() -> None:
    assert epochs_to(0.25, made_log([0.5, 0.2, 0.5, 0.5])) == np.inf


# --- from end to end ------------------------------------------------------------------------------

NO_LRN = Plan(ablation=ABLATIONS["no-lrn"], recipe=recipe(), seeds=2)


@pytest.fixture(scope="module")
def done(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """no-lrn, two pairs, never interrupted."""
    folder = tmp_path_factory.mktemp("ablations") / "quiet"
    return folder, ablate(NO_LRN, store, folder)


def weights(run: Path) -> dict[str, torch.Tensor]:
    trained = native.load(run)
    return {**trained.model.state_dict(), **trained.extra}


def test_pairs(done: tuple[Path, Outcome], store: Store) -> None:
    """Each number is that of the checkpoint of its side and seed; the two
    sides saw the same pictures.
    """
    folder, outcome = done
    for side, values in (("standard", outcome.standard), ("no-lrn", outcome.changed)):
        for seed in (0, 1):
            trained = native.load(folder / side / f"seed{seed}")
            assert evaluate_classifier(engines.of(trained), store).top1_error == values[seed]
            assert ("norm1" in [op.name for op in trained.model.ops]) == (side == "standard")
            assert json.loads((folder / side / f"seed{seed}" / "config.json").read_text())["recipe"]["seed"] == seed
    assert outcome.top1.mean == pytest.approx(100 * np.mean(np.subtract(outcome.changed, outcome.standard)))


@pytest.mark.parametrize("after", [5, 13, 24, 40])
def test_stopped_and_gone_on(
    done: tuple[Path, Outcome], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Ctrl-C in any of the four runs; the same call ends with the same bits, and 48
    steps have been taken in all.
    """
    steps = stop_after(monkeypatch, SGD, "step", after)
    with pytest.raises(Interrupted, match="run the same command to continue"):
        ablate(NO_LRN, store, tmp_path / "out")
    outcome = ablate(NO_LRN, store, tmp_path / "out")
    assert len(steps) == 2 * 2 * 2 * 6
    assert (outcome.standard, outcome.changed) == (done[1].standard, done[1].changed)
    for side in ("standard", "no-lrn"):
        for seed in ("seed0", "seed1"):
            first, second = weights(done[0] / side / seed), weights(tmp_path / "out" / side / seed)
            assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_record(done: tuple[Path, Outcome], store: Store) -> None:
    folder, outcome = done
    record = write_ablation(outcome, store, folder)
    page = (record / "README.md").read_text()
    words = "laptop --width 0.125 --epochs 2 --batch-size 10 --lr 0.01 --device cpu --compile off"
    assert f"alexnet ablate no-lrn {words} --data STORE --seeds 2\n" in page
    assert f"| 1 | {100 * outcome.standard[1]:.2f} % | {100 * outcome.changed[1]:.2f} % |" in page
    assert "n = 2" in page and "section 3.3" in page and "PyTorch" in page
    assert "Parameters: standard 321,523, no-lrn 321,523." in page
    names = {str(path.relative_to(record)) for path in record.rglob("*") if path.is_file()}
    runs = {
        f"{side}/seed{seed}/{name}"
        for side in ("standard", "no-lrn")
        for seed in (0, 1)
        for name in ("config.json", "environment.json", "log.jsonl", "result.json")
    }
    assert names == runs | {"README.md", "config.json", "result.json", "curves.png"}
    assert json.loads((record / "result.json").read_text())["standard"] == list(outcome.standard)


def test_the_standard_side_is_shared(done: tuple[Path, Outcome], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten views train nothing; their errors are those of `evaluate --views 10`."""
    folder, _ = done
    monkeypatch.setattr(SGD, "step", None)  # no step is taken
    asked: list[int] = []

    def counted(*arguments: Any, views: Any) -> Any:
        asked.append(views)
        return evaluate_classifier(*arguments, views=views)

    monkeypatch.setattr(ablating, "evaluate_classifier", counted)
    outcome = ablate(Plan(ablation=ABLATIONS["ten-views"], recipe=recipe(), seeds=2), store, folder)
    assert asked == [10, 10]
    one, ten = (
        [
            evaluate_classifier(engines.load(folder / "standard" / f"seed{seed}", "torch"), store, views=views).top1_error
            for seed in (0, 1)
        ]
        for views in (1, 10)
    )
    assert (list(outcome.standard), list(outcome.changed)) == (one, ten)
    assert "10 views, 1 network averaged" in (write_ablation(outcome, store, folder) / "README.md").read_text()


def test_other_settings_in_the_same_folder(done: tuple[Path, Outcome], store: Store, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"other settings \(lr 0.01, now 0.02\).*another --out"):
        ablate(replace(NO_LRN, recipe=recipe(lr=0.02)), store, done[0])
    with pytest.raises(TrainingError, match="holds a single run"):
        ablate(NO_LRN, store, done[0] / "standard" / "seed0")


def test_five_nets(store: Store, tmp_path: Path) -> None:
    """Seven networks: one group of five, the mean of its errors against that of its average."""
    plan = Plan(ablation=ABLATIONS["five-nets"], recipe=recipe(epochs=1), seeds=7)
    outcome = ablate(plan, store, tmp_path)
    runs = [tmp_path / "standard" / f"seed{seed}" for seed in range(5)]
    errors = [json.loads((run / "result.json").read_text())["evaluation"]["top1_error"] for run in runs]
    assert len(set(errors)) > 1
    assert outcome.standard == pytest.approx([np.mean(errors)])
    together = evaluate_average([engines.load(run, "torch") for run in runs], store).plain
    assert outcome.changed == (together.top1_error,)
    assert not outcome.top1.shown
    assert "| 0 to 4 |" in (write_ablation(outcome, store, tmp_path) / "README.md").read_text()
    assert "One pair is not evidence" in tell(outcome)[0]


def test_tanh(store: Store, tmp_path: Path) -> None:
    """The ratio of the epochs that the logs give; where one side does not get there, no number."""
    plan = Plan(ablation=ABLATIONS["tanh"], recipe=recipe(epochs=6), seeds=2, other_lr=0.008, training_error=0.5)
    outcome = ablate(plan, store, tmp_path)
    epochs = [
        [epochs_to(0.5, read_log(tmp_path / side / seed)) for seed in ("seed0", "seed1")] for side in ("standard-tanh", "tanh")
    ]
    assert [list(outcome.standard), list(outcome.changed)] == epochs
    assert outcome.reached
    ratio = np.exp(np.mean(np.log(epochs[1]) - np.log(epochs[0])))
    assert tell(outcome)[0].startswith(f"Epochs to 50% training error, tanh over standard: {ratio:.2f} times, ")
    page = (write_ablation(outcome, store, tmp_path) / "README.md").read_text()
    assert "--seeds 2 --other-lr 0.008 --training-error 0.5\n" in page
    assert "On both sides: dropout 0.0, crop False, mirror False, colour-noise 0.0, weight-decay 0.0." in page
    never = replace(outcome, changed=(np.inf, outcome.changed[1]))
    assert tell(never)[0].startswith("50% training error was reached by 2 of 2 standard and 1 of 2 tanh networks: no number")
    assert "| not reached |" in (write_ablation(never, store, tmp_path) / "README.md").read_text()
