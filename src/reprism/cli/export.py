"""``reprism export``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import Workers
from reprism.cli.output import progress_bars, titled
from reprism.cli.pictures import find_pictures
from reprism.data.records import Item, ReIDDataset, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from reprism.embedding import Embedder
    from reprism.models.foreign import ForeignNet
    from reprism.models.network import PartNet

_MOST_CROPS = 256  # described in seconds; spread evenly over what is given


@dataclass
class Arguments:
    """Export a network to ONNX or OpenVINO, and prove that it describes as before.

    The proof compares descriptors and ranked lists of real crops in batches of 1, 2 and 17; with --data also mAP and
    rank-1. If it fails, the export fails and nothing is written. Every command that describes images takes the
    folder as its model.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Model file: written by reprism train, or a state dict of the released SCR code."""
    out: Path
    """Folder to write, with the network and export.json."""
    engine: Literal["onnx", "openvino"] = "onnx"
    """Format of the network: onnx for ONNX Runtime and others, openvino for CPUs."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Number format of the weights. fp16 halves the folder. int8 multiplies integers, which is faster; it needs
    --calibrate-on and --data, and keeps layers in floating point until mAP loses at most 0.3 points and rank-1 0.5."""
    crops: list[Path] = field(default_factory=list)
    """Crops of people to prove it on, or folders of such, at least 17 (default: images of --data)."""
    data: str | None = None
    """Labelled data set as NAME:DIR; both networks are evaluated on it (default: none)."""
    calibrate_on: str | None = None
    """Data set as NAME:DIR; int8 finds its ranges on images of its training set."""
    calibration_images: int = 300
    """Number of those images."""
    mirrored: bool = False
    """Put the mirrored image's descriptor into the network, for programs other than Reprism."""
    workers: Workers = 1


def run(argv: Sequence[str]) -> int:
    """Run ``reprism export``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism export",
        example="reprism export runs/scr-market1501/model.safetensors --out scr-onnx --data market1501:people",
        main=("out", "engine", "precision", "data", "crops", "calibrate_on"),
    )
    if arguments.data is None and not arguments.crops:
        raise ValueError("expected crops of people to prove the export on: give --crops FOLDER, or --data NAME:DIR")
    if arguments.precision == "int8" and (arguments.data is None or arguments.calibrate_on is None):
        raise ValueError(
            "int8 needs --calibrate-on NAME:DIR, whose training images set the ranges, and --data NAME:DIR, on which "
            "the scores must hold"
        )

    from reprism.data.check import require_evaluable
    from reprism.embedding import Embedder
    from reprism.engines.export import export_model
    from reprism.evaluator import evaluate_model
    from reprism.models.checkpoint import load

    dataset = _opened(arguments.data)
    paths = find_pictures(arguments.crops)
    if dataset is not None:
        require_evaluable(dataset)
        paths = paths or _pictures(dataset.query + dataset.gallery)
    model = load(arguments.checkpoint, classifiers=False)
    original = Embedder(model, precision="fp32", device="cpu", engine="torch")
    calibration = None
    if arguments.precision == "int8" and (learned := _opened(arguments.calibrate_on)) is not None:
        calibration = _crops(original, _pictures(learned.train), arguments.calibration_images)

    def score(net: "PartNet | ForeignNet", data: ReIDDataset) -> dict[str, float]:
        ours = net is model
        embedder = original if ours else Embedder(net, device="cpu")
        with progress_bars() as progress:
            name = "original" if ours else arguments.precision
            metrics = evaluate_model(embedder, data, workers=arguments.workers, progress=titled(progress, name)).metrics
        return {"mAP": metrics.mAP, "rank1": metrics.rank(1)}

    found = export_model(
        model,
        arguments.out,
        _crops(original, paths, _MOST_CROPS),
        engine=arguments.engine,
        precision=arguments.precision,
        mirrored=arguments.mirrored,
        calibration=calibration,
        score=None if dataset is None else lambda net: score(net, dataset),
        notes={name: value for name in ("data", "calibrate_on") if (value := getattr(arguments, name)) is not None},
    )
    print(f"{arguments.out}: proved on {found.crops} crops in batches of {', '.join(map(str, found.batches))}")
    print(f"least cosine {found.least_cosine:.7f}, same nearest crop for {found.same_nearest:.1%}")
    _print_scores(arguments.out)
    return 0


def _opened(name: str | None) -> ReIDDataset | None:
    if name is None:
        return None
    with progress_bars() as progress:
        return open_named(name, progress)


def _pictures(items: Sequence[Item]) -> list[Path]:
    return [(item if isinstance(item, Sample) else item.frame(0)).path for item in items]


def _crops(embedder: "Embedder", paths: Sequence[Path], most: int) -> "Tensor":
    """Read pictures spread evenly over those given, at the network's size."""
    import torch

    from reprism.data.images import read_image

    count = min(len(paths), most)
    return torch.stack([embedder.resize(read_image(paths[n * len(paths) // count])) for n in range(count)])


def _print_scores(folder: Path) -> None:
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    if "exported" in about:
        before, after = about["original"], about["exported"]
        print(f"mAP {after['mAP']:.2%} (original {before['mAP']:.2%}), rank-1 {after['rank1']:.2%} "
              f"(original {before['rank1']:.2%})")  # fmt: skip
    if "layers" in about:
        print(f"{about['layers'] - len(about['wide_layers'])} of {about['layers']} layers multiply integers")
