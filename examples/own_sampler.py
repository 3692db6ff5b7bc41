"""Train with a sampler and an augmentation of one's own: each person from two cameras, in clothes of changing hue.

python examples/own_sampler.py     draws people to train on; half a minute on two cores
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from torchvision.transforms import v2

import reprism
from reprism.data.sampling import Draw
from reprism.drawn.layouts import render_market1501
from reprism.training.ingredients import Ingredients
from reprism.training.recipes import RECIPES


class TwoCameras:
    """Batches of 8 people, with two images each from two of their cameras."""

    def __init__(self, samples: list[reprism.Sample]) -> None:
        self.epoch = 0
        self.seen: dict[int, dict[int, list[int]]] = {}
        for index, sample in enumerate(samples):
            self.seen.setdefault(sample.pid, {}).setdefault(sample.camid, []).append(index)
        self.people = [pid for pid, cameras in self.seen.items() if len(cameras) > 1]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.people) // 8

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng((0, self.epoch))
        for people in rng.permutation(self.people)[: 8 * len(self)].reshape(-1, 8):
            cameras = [self.seen[pid][camid] for pid in people for camid in rng.permutation([*self.seen[pid]])[:2]]
            indices = [int(index) for images in cameras for index in rng.choice(images, 2)]
            yield [Draw(index, int(rng.integers(2**32))) for index in indices]


def adapt(made: Ingredients) -> Ingredients:
    """Change the hue before all else is done to an image, and draw by cameras (in one process)."""
    images = made.train_set.transformed(v2.Compose([v2.ColorJitter(hue=0.02), made.train_set.transform]))
    return replace(made, train_set=images, sampler=lambda *_: TwoCameras(images.samples))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = render_market1501(Path(folder) / "people", train_identities=24, test_identities=12, size=(96, 48))
        dataset = reprism.open_dataset("market1501", root)
        recipe = RECIPES["cpu-minutes"]
        recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"epochs": 4})})
        run = reprism.train(recipe, Path(folder) / "run", dataset=dataset, adapt=adapt)
        print(reprism.evaluate_model(run.model, dataset))
