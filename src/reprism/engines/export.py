"""Export a part network to ONNX or OpenVINO, proved equal on real crops before the export appears.

An export is a folder with the network, from images B×3×H×W to descriptors B×D for any B, and ``export.json``: all that
:func:`load_exported` needs, the fingerprint of the network it was made of, and the proof. The network is
``network.onnx``, or ``network.xml`` with ``network.bin``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprism._version import __version__
from reprism.data.transforms import Preprocessing, normalize
from reprism.engines.convert import ConversionError, to_onnx, to_openvino
from reprism.engines.files import open_file
from reprism.engines.onnx_graph import ONNX
from reprism.engines.openvino_graph import OPENVINO
from reprism.engines.quantize import GraphFormat, quantize
from reprism.engines.session import Engine, EngineNetwork, UnsuitableError
from reprism.files import whole_folder, write_json
from reprism.models.checkpoint import CheckpointError, fingerprint
from reprism.models.foreign import ForeignNet
from reprism.models.network import PartNet
from reprism.notation import Partition
from reprism.precision import NumberFormat, Precision

ABOUT = "export.json"
NETWORKS: Mapping[str, str] = {"onnx": "network.onnx", "openvino": "network.xml"}
"""Files of a network, by the format that it is exported to."""

BATCHES = (1, 2, 17)
"""Batch sizes that are compared."""

SAME_BATCHES = 0.9999
"""Cosine between the exported network's descriptors of a crop in batches of two sizes, below which an export fails."""

LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": -1.0}
"""Cosine between a crop's descriptors by the network and by its export, below which the export fails, by precision.
Integers are judged by the scores alone."""

LARGEST_SWAP = {"fp32": 1e-3, "fp16": 1e-2, "int8": 2.0}
"""Difference of distances, above which two matches must not change places (unit descriptors are 0 … 2 apart)."""

LARGEST_LOSS = {
    "fp32": {"mAP": 0.001, "rank1": 0.001},
    "fp16": {"mAP": 0.001, "rank1": 0.002},
    "int8": {"mAP": 0.003, "rank1": 0.005},
}
"""Loss of scores on labelled data, above which an export fails."""

M = TypeVar("M")
_FORMAT = 1
_RUN_BY: Mapping[str, Engine] = {"onnx": "onnxruntime", "openvino": "openvino"}  # while it is proved

Score = Callable[["PartNet | ForeignNet"], Mapping[str, float]]
"""Scores of a network on labelled data: ``mAP`` and ``rank1``, 0 … 1."""


class ExportError(ValueError):
    """An export does not describe as its network does, or could not be made; the message says by how much or why."""


@dataclass(frozen=True)
class Parity:
    """Agreement of an exported network with the one it was made of, on the same crops.

    Attributes:
        crops: Number of crops described by both.
        batches: Batch sizes in which they were described.
        least_cosine: Smallest cosine between the two descriptors of a crop, over all batch sizes.
        batches_cosine: Smallest cosine between the exported network's descriptors of a crop in two batch sizes.
        largest_swap: Largest difference of distances by which two crops changed places in a ranked list, each crop
            being the query once.
        same_nearest: Share of crops whose nearest other crop is the same.
    """

    crops: int
    batches: tuple[int, ...]
    least_cosine: float
    batches_cosine: float
    largest_swap: float
    same_nearest: float


def export_model(
    model: PartNet,
    folder: str | PathLike[str],
    crops: Tensor,
    *,
    engine: Literal["onnx", "openvino"] = "onnx",
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    mirrored: bool = False,
    calibration: Tensor | None = None,
    score: Score | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Parity:
    """Write a network as an export folder, after proving that it describes real crops as before.

    Args:
        model: A network in eval mode on the CPU, in float32.
        folder: Folder to make. It appears only if the proof succeeds.
        crops: N×3×height×width uint8 of the network's size, as ``Embedder.resize`` gives them; N at least 17.
        engine: Format that it is exported to.
        precision: Number format of its weights: ``fp16`` halves the folder, and ``int8`` multiplies integers.
        mirrored: Put the mirrored image's descriptor into the network: it describes as ``Embedder(flip=True)`` does.
        calibration: For ``int8``: crops of the training set, as ``crops``; a few hundred are enough.
        score: Scores on labelled data; both networks' are recorded and compared. ``int8`` needs them.
        notes: Further facts for ``export.json``, such as the name of the labelled data.

    Returns:
        The agreement that was found.

    Raises:
        ExportError: Too few crops, a network that cannot be exported, a package that is missing, ``int8`` without
            calibration or scores, or descriptors or scores that differ.
        FileExistsError: ``folder`` is there and not empty.
    """
    if len(crops) < max(BATCHES):
        raise ExportError(f"expected at least {max(BATCHES)} crops to prove an export on, got {len(crops)}")
    if model.training:
        raise ExportError("expected a network in eval mode: call model.eval()")
    if precision == "int8" and (calibration is None or score is None):
        raise ExportError("int8 is made of calibration images and of scores on labelled data: give both")
    about: dict[str, Any] = {
        "format": _FORMAT,
        "version": __version__,
        "engine": engine,
        "precision": precision,
        "mirrored": mirrored,
        "partition": str(model.partition),
        "part_dim": model.part_dim,
        "backbone": model.backbone,
        "preprocessing": model.preprocessing.to_dict(),
        "exported_from": fingerprint(model),
    }
    expected = dict(score(model)) if score is not None else {}
    trial = None
    if precision == "int8" and calibration is not None and score is not None:
        trial = _Trial(calibration, score, expected)
    with whole_folder(folder) as unfinished:
        file = unfinished / NETWORKS[engine]
        try:
            write = _write_onnx if engine == "onnx" else _write_openvino
            about |= write(model, file, about, trial)
        except ConversionError as error:
            raise ExportError(str(error)) from error
        exported = _with_parts(_network(file, about, "cpu", "fp32", _RUN_BY[engine]), about)
        about["fingerprint"] = fingerprint(exported)
        found = _compare(model, exported, crops)
        _require_parity(found, precision)
        if score is not None:
            about |= {"original": expected, "exported": _kept_scores(score(exported), expected, precision)}
        write_json(unfinished / ABOUT, about | {"parity": asdict(found)} | dict(notes or {}))
    return found


def load_exported(
    folder: str | PathLike[str],
    device: str | torch.device = "cpu",
    precision: Precision = "auto",
    engine: Engine = "auto",
) -> ForeignNet:
    """Load an export folder.

    Args:
        folder: Folder that :func:`export_model` made.
        device: Device to run on.
        precision, engine: As in :func:`reprism.engines.files.open_file`.

    Raises:
        CheckpointError: It is no export, damaged, or of a newer format; or the engine is not installed.
        UnsuitableError: The engine does not run it in this precision.
    """
    folder = Path(folder)
    if not (folder / ABOUT).is_file():
        remedy = f"; give {folder / 'model.safetensors'}" if (folder / "model.safetensors").is_file() else ""
        raise CheckpointError(f"{folder} is no exported network: it holds no {ABOUT}{remedy}")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != _FORMAT:
            raise CheckpointError(
                f"{folder} was exported in format {about['format']} by Reprism {about.get('version')}; this is Reprism "
                f"{__version__}, which reads format {_FORMAT}. Update Reprism."
            )
        file = folder / NETWORKS[about["engine"]]
        network = _network(file, about, device, precision, engine)
        net = _with_parts(network, about)
        whole = fingerprint(net) == about["fingerprint"]
    except (CheckpointError, UnsuitableError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder / ABOUT} is damaged ({error!r})") from error
    if not whole:
        raise CheckpointError(f"{folder} is not what was exported: {file.name} or {ABOUT} has changed. Export again.")
    return net


def _network(
    file: Path, about: Mapping[str, Any], device: str | torch.device, precision: Precision, engine: Engine
) -> EngineNetwork:
    numbers: NumberFormat | None = "int8" if about["precision"] == "int8" else None
    return open_file(file, device=device, precision=precision, engine=engine, numbers=numbers)


def _with_parts(network: EngineNetwork, about: Mapping[str, Any]) -> ForeignNet:
    return ForeignNet(
        network,
        Preprocessing.from_dict(about["preprocessing"]),
        Partition.parse(about["partition"]),
        about["backbone"],
        original=about["exported_from"],
        mirrored=about.get("mirrored", False),
    )


@dataclass(frozen=True)
class _Trial:
    """What ``int8`` is made and judged by: images of the training set, and scores on labelled data."""

    calibration: Tensor
    score: Score
    expected: Mapping[str, float]


def _write_onnx(model: PartNet, file: Path, about: Mapping[str, Any], trial: _Trial | None) -> dict[str, Any]:
    """Write the network, quantized if that is asked for; returns what that is to say of its layers."""
    to_onnx(model, file, mirrored=about["mirrored"], half=about["precision"] == "fp16")
    if trial is None:
        return {}
    import onnx

    quantized, said = _quantized(ONNX, onnx.load(file), model, about, trial)
    for written in file.parent.glob(f"{file.name}*"):
        written.unlink()  # weights beside the file too, which large networks have
    onnx.save(quantized, file)
    return said


def _write_openvino(model: PartNet, file: Path, about: Mapping[str, Any], trial: _Trial | None) -> dict[str, Any]:
    """Write the network, quantized if that is asked for; returns what that is to say of its layers."""
    said: dict[str, Any] = {}
    converted = to_openvino(model, mirrored=about["mirrored"])
    import openvino

    if trial is not None:
        converted, said = _quantized(OPENVINO, converted, model, about, trial)
    openvino.save_model(converted, file, compress_to_fp16=about["precision"] == "fp16")
    return said


def _quantized(
    form: GraphFormat[M], converted: M, model: PartNet, about: Mapping[str, Any], trial: _Trial
) -> tuple[M, dict[str, Any]]:
    """Return the network in 8-bit integers, and what is to say of its layers."""

    def scored(network: EngineNetwork) -> Mapping[str, float]:
        mirrored = about["mirrored"]
        return trial.score(ForeignNet(network, model.preprocessing, model.partition, model.backbone, mirrored=mirrored))

    images = normalize(model.preprocessing)(trial.calibration)
    made = quantize(form, converted, images, scored, trial.expected, LARGEST_LOSS["int8"])
    layers = form.layers(made)
    wide = [name for name, is_wide in layers.items() if is_wide]
    return made, {"calibrated_on": len(trial.calibration), "layers": len(layers), "wide_layers": wide}


def _require_parity(found: Parity, precision: str) -> None:
    least, largest = LEAST_COSINE[precision], LARGEST_SWAP[precision]
    if not found.batches_cosine >= SAME_BATCHES:
        raise ExportError(
            f"the exported network describes a crop differently in batches of {found.batches}: the least cosine is "
            f"{found.batches_cosine:.6f} (at least {SAME_BATCHES} is needed)"
        )
    if not (found.least_cosine >= least and found.largest_swap <= largest):
        raise ExportError(
            f"the exported network does not describe as its original does: the least cosine of {found.crops} crops "
            f"is {found.least_cosine:.6f} (at least {least} is needed), and matches {found.largest_swap:.2g} apart "
            f"changed places (at most {largest} is allowed)"
        )


def _kept_scores(found: Mapping[str, float], expected: Mapping[str, float], precision: str) -> dict[str, float]:
    """Return the export's scores.

    Raises:
        ExportError: One is lower than the original's by more than is allowed.
    """
    for name, allowed in LARGEST_LOSS[precision].items():
        if not expected[name] - found[name] <= allowed:
            raise ExportError(
                f"the exported network has {name} {found[name]:.2%}, its original {expected[name]:.2%}: more than "
                f"{100 * allowed:g} points less"
            )
    return dict(found)


def _compare(model: PartNet | ForeignNet, exported: ForeignNet, crops: Tensor) -> Parity:
    images = normalize(model.preprocessing)(crops)
    mirrored = exported.mirrored
    with torch.inference_mode():
        ours = _described(model, images, 32, mirrored)
        few = [_described(exported, images[: 2 * max(BATCHES)], size) for size in BATCHES[:-1]]
        theirs = _described(exported, images, max(BATCHES))
    every = [*few, theirs]
    before, after = torch.cdist(ours, ours), torch.cdist(theirs, theirs)
    for distances in (before, after):
        distances.fill_diagonal_(-1)  # a crop is the nearest to itself, and counts in neither list
    order = after.argsort(1)
    ranked = before.gather(1, order)[:, 1:]
    return Parity(
        crops=len(crops),
        batches=BATCHES,
        least_cosine=float(torch.cat([(rows * ours[: len(rows)]).sum(1) for rows in every]).min()),
        batches_cosine=float(torch.cat([(rows * theirs[: len(rows)]).sum(1) for rows in few]).min()),
        largest_swap=float((ranked.cummax(1).values - ranked).max()),
        same_nearest=float((order[:, 1] == before.argsort(1)[:, 1]).float().mean()),
    )


def _described(model: nn.Module, images: Tensor, batch: int, mirrored: bool = False) -> Tensor:
    """Return N×D float64 rows of length 1; ``mirrored`` adds the mirrored image's."""
    rows = []
    for some in images.split(batch):
        one = model(some).descriptor.double()
        rows.append(one + model(some.flip(-1)).descriptor.double() if mirrored else one)
    return F.normalize(torch.cat(rows), dim=1)
