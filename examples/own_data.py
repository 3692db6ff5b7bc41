"""Train and evaluate on a data set of one's own, with one's own sampler and augmentation.

python examples/own_data.py     the data set is drawn; half a minute on two cores
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import v2

import reprism
from reprism.data.sampling import Draw
from reprism.drawn.shots import camera, draw_person, person
from reprism.training.ingredients import Ingredients
from reprism.training.recipes import RECIPES, Recipe


def my_dataset(folder: Path) -> reprism.ReIDDataset:
    """Write pictures of 24 people from three cameras; the first 16 are to train on."""
    splits = {"train": [], "query": [], "gallery": []}
    for pid in range(24):
        for number in range(6):
            path = folder / f"{pid}-{number}.png"
            pixels = draw_person(person(1, pid), camera(1, number % 3), np.random.default_rng((pid, number)))
            Image.fromarray(pixels).save(path)
            split = "train" if pid < 16 else "query" if number < 3 else "gallery"
            splits[split].append(reprism.Sample(path, pid, number % 3))
    return reprism.ReIDDataset("mine", folder, **{name: tuple(items) for name, items in splits.items()})


class AtRandom:
    """Ten batches of any 32 images, whoever they show."""

    def __init__(self, count):
        self.rng, self.count = np.random.default_rng(0), count

    def __len__(self):
        return 10

    def __iter__(self):
        for _ in range(len(self)):
            yield [Draw(int(i), int(seed)) for i, seed in self.rng.integers(0, (self.count, 2**32), (32, 2))]


def adapt(made: Ingredients) -> Ingredients:
    """Change the augmentation and the sampler."""
    images = made.train_set.transformed(v2.Compose([v2.RandomGrayscale(0.1), made.train_set.transform]))
    return replace(made, train_set=images, sampler=lambda *_: AtRandom(len(images)))


if __name__ == "__main__":
    recipe = Recipe.model_validate(RECIPES["cpu-minutes"].model_dump() | {"optimizer": {"epochs": 2, "lr": 1e-3}})
    with tempfile.TemporaryDirectory() as temporary:
        data = my_dataset(Path(temporary))
        run = reprism.train(recipe, Path(temporary) / "run", dataset=data, adapt=adapt)
        print(reprism.evaluate_model(run.model, data))
