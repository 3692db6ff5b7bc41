"""Evaluate somebody else's network: any module that makes descriptors, with the preprocessing that it was trained with.

python examples/own_network.py     draws people; a torchvision ResNet-18 with random weights describes them
"""

import tempfile
from pathlib import Path

import torch
import torchvision
from torch import nn

import reprism
from reprism.drawn.layouts import render_market1501


def main() -> None:
    """Print the network's scores, its hardest query and the table of camera pairs."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Identity()  # 512 columns, as they come from average pooling
    preprocessing = reprism.Preprocessing(size=(128, 64), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    with tempfile.TemporaryDirectory() as folder:
        root = render_market1501(Path(folder) / "people", train_identities=4, test_identities=12, size=(96, 48))
        dataset = reprism.open_dataset("market1501", root)
        result = reprism.evaluate_model(network, dataset, preprocessing=preprocessing, precision="fp32")
        print(f"rank-1 {result.metrics.rank(1):.1%}, mAP {result.metrics.mAP:.1%}")
        print(result.describe())
        (hardest,) = result.hardest(1)
        found = result.ranked_list(hardest, top=5)
        print(f"hardest query: {dataset.query[hardest].path.name}, right among its nearest five: {found.correct.sum()}")
        for (query_camera, gallery_camera), metrics in result.by_camera_pair().items():
            print(f"camera {query_camera} looked for in camera {gallery_camera}: rank-1 {metrics.rank(1):.1%}")


if __name__ == "__main__":
    main()
