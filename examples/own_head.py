"""A head and a pooling of one's own: built, trained, saved, and read back.

python examples/own_head.py     draws people to train on; a quarter of a minute on two cores
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import reprism
from reprism.drawn.layouts import render_market1501
from reprism.training.recipes import RECIPES


class Gated(nn.Module):
    """A linear reduction whose columns are gated by what they are made from."""

    def __init__(self, in_dim: int, part_dim: int) -> None:
        super().__init__()
        self.reduce, self.gate = nn.Linear(in_dim, part_dim), nn.Linear(in_dim, part_dim)
        self.norm = nn.BatchNorm1d(part_dim)

    def forward(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """B×in_dim → B×part_dim to describe and classify by, and B×part_dim for the triplet loss."""
        before = self.reduce(vector) * self.gate(vector).sigmoid()
        return self.norm(before), before


class MeanAndMax(nn.Module):
    """Mean plus maximum of each stripe."""

    def forward(self, feature_map: Tensor, rows: int) -> Tensor:
        """B×C×H×W → B×C×rows."""
        stripes = feature_map.float().tensor_split(rows, dim=2)
        return torch.stack([stripe.mean((2, 3)) + stripe.amax((2, 3)) for stripe in stripes], dim=2)


def main() -> None:
    """Train a small network with both for a few epochs, and print what the file that it left scores."""
    with tempfile.TemporaryDirectory() as folder:
        root = render_market1501(Path(folder) / "people", train_identities=24, test_identities=12, size=(96, 48))
        dataset = reprism.open_dataset("market1501", root)
        recipe = RECIPES["cpu-minutes"]
        recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"epochs": 4})})
        classes, size = dataset.num_train_identities, recipe.data.size
        model = reprism.build_model("p1(s2)", "resnet10t", classes, 64, size=size, head=Gated, pool=MeanAndMax())
        run = reprism.train(
            recipe, Path(folder) / "run", dataset=dataset, adapt=lambda made: replace(made, model=model)
        )
        again = reprism.load(run.folder / "model.safetensors", head=Gated, pool=MeanAndMax())
        print(reprism.evaluate_model(again, dataset))


if __name__ == "__main__":
    main()
