"""Parts of one's own in a run: data, loss, sampler, optimiser, schedule, augmentation, callbacks, loggers."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file
from torch import Tensor, nn

import reprism
from reprism.data.records import ReIDDataset
from reprism.losses import EachPart, PartCrossEntropy, WeightedSum
from reprism.training.ingredients import EpochSampler, Ingredients, build_ingredients, loss_terms
from reprism.training.recipes import RecipeError, find_recipe
from reprism.training.run import train

MakeRecipe = Callable[..., Any]


@pytest.fixture(scope="module")
def dataset(people: Path) -> ReIDDataset:
    return reprism.open_dataset("market1501", people)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_data_set_in_hand_trains_as_the_one_in_the_folder(
    uninterrupted: Path, people: Path, dataset: ReIDDataset, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(people)
    handed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": None, "name": "not looked at"})})
    folder = train(handed, tmp_path / "run", dataset=dataset, adapt=lambda made: made).folder
    assert same(weights(folder), weights(uninterrupted))
    assert find_recipe(str(folder)).data.root == people


class PullTogether(nn.Module):
    """Mean squared distance of each image's global features to a centre of its identity, which is learned."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(classes, width))

    def forward(self, output: Any, labels: Tensor) -> Tensor:
        return (output.features["p1"] - self.centers[labels]).square().mean()


def test_a_loss_of_ones_own_trains_its_parameters_too(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    kept: list[Ingredients] = []

    def adapt(made: Ingredients) -> Ingredients:
        kept.append(replace(made, loss=PullTogether(12, 8)))
        return kept[0]

    folder = train(recipe_of(people), tmp_path / "run", adapt=adapt).folder
    assert kept[0].loss.centers.abs().max() > 0  # type: ignore[union-attr, operator]
    assert len(logged(folder, "loss/total")) == 9
    # Its state is in the point to resume from, not in the model.
    point = torch.load(folder / "last.ckpt", weights_only=True)
    assert "loss.centers" in point["state_dict"]
    assert not [name for name in weights(folder) if "centers" in name]


def test_terms_by_name_are_logged(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    terms = {"cross_entropy": (2.0, PartCrossEntropy()), "pull": (0.5, PullTogether(12, 8))}
    folder = train(
        recipe_of(people), tmp_path / "run", adapt=lambda made: replace(made, loss=WeightedSum(**terms))
    ).folder
    total, entropy, pull = (np.array(logged(folder, f"loss/{name}")) for name in ("total", "cross_entropy", "pull"))
    np.testing.assert_allclose(total, 2 * entropy + 0.5 * pull, rtol=1e-5)


def test_optimizer_and_schedule_of_ones_own(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    rates: list[float] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            assert isinstance(trainer.optimizers[0], torch.optim.SGD)

    train(
        recipe_of(people),
        tmp_path / "run",
        adapt=lambda made: replace(
            made,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            schedule=lambda epoch: 1 / (1 + epoch),
        ),
        callbacks=[Watch()],
    )
    # 3 epochs of 3 steps: the moment of each step, in epochs.
    np.testing.assert_allclose(rates, [0.1 / (1 + step / 3) for step in range(9)])


def test_an_optimizer_of_another_model_is_refused(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    other = nn.Linear(2, 2)
    with pytest.raises(RecipeError, match="another model"):
        train(
            recipe_of(people),
            tmp_path / "run",
            adapt=lambda made: replace(made, optimizer=lambda _: torch.optim.SGD(other.parameters(), lr=0.1)),
        )


class InOrder:
    """Every batch the next images of the list: plain indices, no epochs."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count // self.size

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self) * self.size, self.size):
            yield list(range(start, start + self.size))


def test_a_sampler_and_an_augmentation_of_ones_own(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def adapt(made: Ingredients) -> Ingredients:
        def gray(image: Tensor) -> Tensor:
            seen.append(image)
            return made.train_set.transform(image).mean(0, keepdim=True).expand(3, -1, -1)

        gray_set = made.train_set.transformed(gray)
        return replace(made, train_set=gray_set, sampler=lambda *_: InOrder(len(gray_set), 20))

    images: list[Tensor] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            images.append(batch)

    train(recipe_of(people), tmp_path / "run", adapt=adapt, callbacks=[Watch()])
    assert len(images) == 3 * (108 // 20)
    assert all(torch.equal(batch[:, 0], batch[:, 2]) for batch, _ in images)
    expected = reprism.open_dataset("market1501", people).train_targets[:20]
    assert images[0][1].tolist() == list(expected)
    assert len(seen) >= 300


def test_any_sampler_goes_on_in_the_middle_of_an_epoch() -> None:
    whole = list(InOrder(50, 5))
    sampler = EpochSampler(InOrder(50, 5))
    sampler.start_batch = 4
    sampler.set_epoch(3)
    assert list(sampler) == whole[4:]
    assert list(sampler) == whole


def test_loggers_of_ones_own_stand_beside_the_one_that_reports_read(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    folder = train(recipe_of(people), tmp_path / "run", loggers=[CSVLogger(tmp_path, "mine")]).folder
    assert len(logged(folder, "loss/total")) == 9
    assert (tmp_path / "mine" / "version_0" / "metrics.csv").is_file()
    assert not (folder / "tensorboard").exists()


def test_what_adapt_or_a_loss_must_return(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected Ingredients with a PartNet"):
        train(recipe_of(people), tmp_path / "run", adapt=lambda made: None)  # type: ignore[arg-type, return-value]
    for value in (torch.zeros(3), {"cross_entropy": torch.zeros(())}, 1.0):
        with pytest.raises(TypeError, match="expected a scalar loss"):
            loss_terms(value)


def test_ingredients_serve_a_plain_loop(people: Path, dataset: ReIDDataset, recipe_of: MakeRecipe) -> None:
    torch.manual_seed(0)
    made = build_ingredients(recipe_of(people), dataset)
    optimizer = made.optimizer([*made.model.parameters()])
    before = [parameter.clone() for parameter in made.model.parameters()]
    for keys in made.sampler(0, 1):
        images, labels = zip(*(made.train_set[key] for key in keys), strict=True)
        total = made.loss(made.model.train()(torch.stack(images)), torch.tensor(labels)).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert any(not torch.equal(one, other) for one, other in zip(before, made.model.parameters(), strict=True))


def test_losses_of_pytorch_metric_learning(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed")
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    partition = recipe_of(people).model.partition
    circle = EachPart(losses.CircleLoss(), partition)
    similar = EachPart(losses.MultiSimilarityLoss(), partition, ("stripe", "channel"), miners.MultiSimilarityMiner())
    proxies = EachPart(losses.ProxyAnchorLoss(12, 8), partition)
    assert [len(each.losses) for each in (circle, similar, proxies)] == [2, 4, 2]

    def adapt(made: Ingredients) -> Ingredients:
        terms = {
            "entropy": (1.0, PartCrossEntropy()),
            "circle": (0.1, circle),
            "ms": (1.0, similar),
            "pa": (1.0, proxies),
        }
        return replace(made, loss=WeightedSum(**terms))

    before = [parameter.clone() for parameter in proxies.parameters()]
    folder = train(recipe_of(people), tmp_path / "run", adapt=adapt).folder
    assert np.isfinite(logged(folder, "loss/total")).all()
    assert all(not torch.equal(one, other) for one, other in zip(before, proxies.parameters(), strict=True))


def test_another_pooling_and_head_are_trained_by_a_recipe(people: Path, tmp_path: Path, recipe_of: MakeRecipe) -> None:
    recipe = recipe_of(people, model={"pool": "gem", "head": "bnneck"}, optimizer={"lr": 0.02})
    folder = train(recipe, tmp_path / "run").folder
    model = reprism.load(folder / "model.safetensors")
    assert model.kinds == {"pool": "gem", "head": "bnneck"}
    assert float(model.pool.exponent) != 3.0  # type: ignore[arg-type]
    assert all(bool((head.norm.bias == 0).all()) for head in model.heads.values())
    assert find_recipe(str(folder)).model.pool == "gem"


def test_an_earlier_model_is_gone_on_from_with_its_trunk_frozen(
    people: Path, uninterrupted: Path, recipe_of: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = uninterrupted / "model.safetensors"
    caplog.set_level("INFO", "reprism")
    for freeze, still in (("trunk", ("trunk.",)), ("branches", ("trunk.", "branches."))):
        recipe = recipe_of(people, model={"pretrained": str(earlier), "freeze": freeze, "partition": "p1+p3"})
        made = weights(train(recipe, tmp_path / freeze).folder)
        before = load_file(earlier)
        assert (
            f"started from {earlier}: taken: trunk, branches.p1, branches.p3 (from branches.p1), heads.p1"
            in caplog.text
        )
        for name, value in made.items():
            source = name.replace("p3", "p1")
            if name.startswith(still):
                assert torch.equal(value, before[source]), "weights and batch statistics stay"
            elif "num_batches" not in name and value.is_floating_point() and source in before:
                assert not torch.equal(value, before[source]), name


def test_learning_rates_differ_by_part_of_the_network(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    rates: list[dict[int, float]] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            groups = trainer.optimizers[0].param_groups
            rates.append({id(each): group["lr"] for group in groups for each in group["params"]})
            self.model = module.model

    watch = Watch()
    recipe = recipe_of(people, optimizer={"factors": {"trunk": 0.1, "branches": 0.0}})
    folder = train(recipe, tmp_path / "run", callbacks=[watch]).folder
    model = watch.model
    for part, factor in (("trunk", 0.1), ("branches", 0.0), ("heads", 1.0), ("classifiers", 1.0)):
        for parameter in getattr(model, part).parameters():
            # 1e-3, a tenth of it after the first of three epochs.
            assert [step[id(parameter)] for step in rates] == pytest.approx([1e-3 * factor] * 3 + [1e-4 * factor] * 6)
    assert find_recipe(str(folder)).optimizer.factors == {"trunk": 0.1, "branches": 0.0}
