"""``reprism export``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import Workers
from reprism.cli.output import progress_bars, titled
from reprism.cli.pictures import find_pictures
from reprism.data.records import ReIDDataset, Sample

if TYPE_CHECKING:
    from reprism.models.foreign import ForeignNet

_MOST_CROPS = 256  # described in seconds; spread evenly over what is given

_LARGEST_LOSS = 0.001  # of mAP and rank-1, as fractions: float32 differs by rounding alone


@dataclass
class Arguments:
    """Export a network to ONNX, and prove that it describes as before.

    The proof compares descriptors and ranked lists of real crops in batches of 1, 2 and 17; with --data also mAP and
    rank-1. If it fails, the export fails and nothing is written. Every command that describes images takes the
    folder as its model.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Model file: written by reprism train, or a state dict of the released SCR code."""
    out: Path
    """Folder to write, with network.onnx and export.json."""
    crops: list[Path] = field(default_factory=list)
    """Crops of people to prove it on, or folders of such, at least 17 (default: images of --data)."""
    data: str | None = None
    """Labelled data set as NAME:DIR; both networks are evaluated on it (default: none)."""
    workers: Workers = 1


def run(argv: Sequence[str]) -> int:
    """Run ``reprism export``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism export",
        example="reprism export runs/scr-market1501/model.safetensors --out scr-onnx --data market1501:people",
        main=("out", "data", "crops"),
    )
    if arguments.data is None and not arguments.crops:
        raise ValueError("expected crops of people to prove the export on: give --crops FOLDER, or --data NAME:DIR")

    import torch

    from reprism.data.check import require_evaluable
    from reprism.data.images import read_image
    from reprism.embedding import Embedder
    from reprism.engines.export import ExportError, export_onnx
    from reprism.evaluator import evaluate_model
    from reprism.models.checkpoint import load

    dataset = None
    paths = find_pictures(arguments.crops)
    if arguments.data is not None:
        with progress_bars() as progress:
            dataset = open_named(arguments.data, progress)
        require_evaluable(dataset)
        items = (*dataset.query, *dataset.gallery)
        paths = paths or [(item if isinstance(item, Sample) else item.frame(0)).path for item in items]
    model = load(arguments.checkpoint, classifiers=False)
    original = Embedder(model, precision="fp32", device="cpu")
    count = min(len(paths), _MOST_CROPS)
    crops = [original.resize(read_image(paths[n * len(paths) // count])) for n in range(count)]

    def scores(embedder: Embedder, data: ReIDDataset, name: str) -> dict[str, float]:
        with progress_bars() as progress:
            metrics = evaluate_model(embedder, data, workers=arguments.workers, progress=titled(progress, name)).metrics
        return {"mAP": metrics.mAP, "rank1": metrics.rank(1)}

    def further(exported: "ForeignNet") -> dict[str, Any]:
        if dataset is None:
            return {}
        before = scores(original, dataset, "original")
        after = scores(Embedder(exported, device="cpu"), dataset, "exported")
        for name in before:
            if before[name] - after[name] > _LARGEST_LOSS:
                raise ExportError(
                    f"the exported network has {name} {after[name]:.2%} on {arguments.data}, its original "
                    f"{before[name]:.2%}"
                )
        return {"data": arguments.data, "original": before, "exported": after}

    found = export_onnx(model, arguments.out, torch.stack(crops), further)
    print(f"{arguments.out}: proved on {found.crops} crops in batches of {', '.join(map(str, found.batches))}")
    print(f"least cosine {found.least_cosine:.7f}, same nearest crop for {found.same_nearest:.1%}")
    return 0
