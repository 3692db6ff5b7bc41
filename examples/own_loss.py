"""Train with a loss of one's own: circle loss on the global features beside the paper's cross-entropy.

python examples/own_loss.py     draws people to train on; half a minute on two cores
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import reprism
from reprism.drawn.layouts import render_market1501
from reprism.losses import EachPart, PartCrossEntropy, WeightedSum
from reprism.training.recipes import RECIPES


class CircleLoss(nn.Module):
    """Circle loss over all pairs of a batch (Sun et al., CVPR 2020), of features B×D and labels B."""

    def forward(self, features: Tensor, labels: Tensor, margin: float = 0.25, gamma: float = 64.0) -> Tensor:
        """Return the loss, a scalar."""
        rows = nn.functional.normalize(features)
        cosines, same = rows @ rows.T, labels[:, None] == labels[None, :]
        apart = torch.triu(torch.ones_like(same), diagonal=1).bool()
        near, far = cosines[same & apart], cosines[~same & apart]
        pull = -gamma * (1 + margin - near).detach().clamp(min=0) * (near - (1 - margin))
        push = gamma * (far + margin).detach().clamp(min=0) * (far - margin)
        return nn.functional.softplus(pull.logsumexp(0) + push.logsumexp(0))


def main() -> None:
    """Train a small network and print what it scores on people it was not trained on."""
    with tempfile.TemporaryDirectory() as folder:
        root = render_market1501(Path(folder) / "people", train_identities=24, test_identities=12, size=(96, 48))
        dataset = reprism.open_dataset("market1501", root)
        recipe = RECIPES["cpu-minutes"]
        short = recipe.optimizer.model_copy(update={"epochs": 4})
        quiet = recipe.trainer.model_copy(update={"evaluate_every": 0})
        recipe = recipe.model_copy(update={"optimizer": short, "trainer": quiet})
        circle = EachPart(CircleLoss(), recipe.model.partition, kinds=("global",))
        loss = WeightedSum(cross_entropy=(2.0, PartCrossEntropy()), circle=(0.05, circle))
        result = reprism.train(
            recipe, Path(folder) / "run", dataset=dataset, adapt=lambda made: replace(made, loss=loss)
        )
        print(f"rank-1 {result.metrics['rank1']:.1%}, mAP {result.metrics['mAP']:.1%}")


if __name__ == "__main__":
    main()
