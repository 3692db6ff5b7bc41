"""Train without a trainer: a recipe's ingredients in a loop of one's own.

python examples/plain_loop.py     draws people to train on; half a minute on two cores
"""

import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import reprism
from reprism.drawn.layouts import render_market1501
from reprism.training.ingredients import build_ingredients
from reprism.training.recipes import RECIPES


def main() -> None:
    """Train for three epochs, save the network, and print what it scores."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        root = render_market1501(Path(folder) / "people", train_identities=24, test_identities=12, size=(96, 48))
        dataset = reprism.open_dataset("market1501", root)
        made = build_ingredients(RECIPES["cpu-minutes"], dataset)
        sampler = made.sampler(0, 1)
        loader = DataLoader(made.train_set, batch_sampler=sampler)
        optimizer = made.optimizer([*made.model.parameters(), *made.loss.parameters()])
        rate = optimizer.param_groups[0]["lr"]
        made.model.train()
        for epoch in range(3):
            sampler.set_epoch(epoch)
            optimizer.param_groups[0]["lr"] = rate * made.schedule(epoch + 0.5)
            for images, labels in loader:
                terms = made.loss(made.model(images), labels)
                optimizer.zero_grad()
                terms.total.backward()
                optimizer.step()
            print(f"epoch {epoch + 1}: loss {terms.total.item():.2f}")
        path = reprism.save(made.model.eval(), Path(folder) / "mine.safetensors")
        result = reprism.evaluate_model(path, dataset)
        print(f"rank-1 {result.metrics.rank(1):.1%}, mAP {result.metrics.mAP:.1%}; {result.describe()}")


if __name__ == "__main__":
    main()
