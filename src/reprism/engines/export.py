"""Export a part network to ONNX, proved equal on real crops before the export appears.

An export is a folder with ``network.onnx``, from images B×3×H×W to descriptors B×D for any B, and ``export.json``: all
that :func:`load_exported` needs, the fingerprint of the network it was made of, and the proof.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprism._version import __version__
from reprism.data.transforms import Preprocessing, normalize
from reprism.engines.onnx import OnnxNetwork
from reprism.files import whole_folder, write_json
from reprism.models.checkpoint import CheckpointError, fingerprint
from reprism.models.foreign import ForeignNet
from reprism.models.network import PartNet
from reprism.notation import Partition

NETWORK, ABOUT = "network.onnx", "export.json"

BATCHES = (1, 2, 17)
"""Batch sizes that are compared."""

LEAST_COSINE = 0.9999
"""Cosine between the two descriptors of a crop, below which an export of float32 numbers fails."""

LARGEST_SWAP = 1e-3
"""Difference of distances, above which two matches must not change places (unit descriptors are 0 … 2 apart)."""

_FORMAT = 1


class ExportError(ValueError):
    """An export does not describe as its network does, or could not be made; the message says by how much or why."""


@dataclass(frozen=True)
class Parity:
    """Agreement of an exported network with the one it was made of, on the same crops.

    Attributes:
        crops: Number of crops described by both.
        batches: Batch sizes in which they were described.
        least_cosine: Smallest cosine between the two descriptors of a crop, over all batch sizes.
        largest_swap: Largest difference of distances by which two crops changed places in a ranked list, each crop
            being the query once.
        same_nearest: Share of crops whose nearest other crop is the same.
    """

    crops: int
    batches: tuple[int, ...]
    least_cosine: float
    largest_swap: float
    same_nearest: float


class _Descriptor(nn.Module):
    def __init__(self, model: PartNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        descriptor: Tensor = self.model(images).descriptor
        return descriptor


def export_onnx(
    model: PartNet,
    folder: str | PathLike[str],
    crops: Tensor,
    further: Callable[[ForeignNet], Mapping[str, Any]] | None = None,
) -> Parity:
    """Write a network as an export folder, after proving that it describes real crops as before.

    Args:
        model: A network in eval mode on the CPU, in float32.
        folder: Folder to make. It appears only if the proof succeeds.
        crops: N×3×height×width uint8 of the network's size, as ``Embedder.resize`` gives them; N at least 17.
        further: Further proof: called with the exported network; returns facts for ``export.json``, or raises
            :class:`ExportError`.

    Returns:
        The agreement that was found.

    Raises:
        ExportError: Too few crops, a network that cannot be exported, a package that is missing, or descriptors that
            differ.
        FileExistsError: ``folder`` is there and not empty.
    """
    if len(crops) < max(BATCHES):
        raise ExportError(f"expected at least {max(BATCHES)} crops to prove an export on, got {len(crops)}")
    if model.training:
        raise ExportError("expected a network in eval mode: call model.eval()")
    with whole_folder(folder) as unfinished:
        _write_network(model, unfinished / NETWORK)
        about = {
            "format": _FORMAT,
            "version": __version__,
            "engine": "onnxruntime",
            "precision": "fp32",
            "partition": str(model.partition),
            "part_dim": model.part_dim,
            "backbone": model.backbone,
            "preprocessing": model.preprocessing.to_dict(),
            "exported_from": fingerprint(model),
        }
        exported = _exported(unfinished / NETWORK, about)
        about["fingerprint"] = fingerprint(exported)
        found = _compare(model, exported, crops)
        if found.least_cosine < LEAST_COSINE or found.largest_swap > LARGEST_SWAP:
            raise ExportError(
                f"the exported network does not describe as its original does: the least cosine of {found.crops} crops "
                f"is {found.least_cosine:.6f} (at least {LEAST_COSINE} is needed), and matches "
                f"{found.largest_swap:.2g} apart changed places (at most {LARGEST_SWAP} is allowed)"
            )
        more = dict(further(exported)) if further is not None else {}
        write_json(unfinished / ABOUT, about | {"parity": asdict(found), **more})
    return found


def load_exported(folder: str | PathLike[str], device: str | torch.device = "cpu") -> ForeignNet:
    """Load an export folder.

    Args:
        folder: Folder that :func:`export_onnx` made.
        device: Device to run on.

    Raises:
        CheckpointError: It is no export, damaged, or of a newer format; or ONNX Runtime is not installed.
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
        net = _exported(folder / NETWORK, about, device)
        whole = fingerprint(net) == about["fingerprint"]
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder / ABOUT} is damaged ({error!r})") from error
    if not whole:
        raise CheckpointError(f"{folder} is not what was exported: {NETWORK} or {ABOUT} has changed. Export again.")
    return net


def _exported(network: Path, about: Mapping[str, Any], device: str | torch.device = "cpu") -> ForeignNet:
    preprocessing, partition = Preprocessing.from_dict(about["preprocessing"]), Partition.parse(about["partition"])
    return ForeignNet(OnnxNetwork(network, device=device), preprocessing, partition, about["backbone"])


def _write_network(model: PartNet, path: Path) -> None:
    """Write the ONNX file, with an open batch size.

    Raises:
        ExportError: A package is missing, or torch cannot export the network; gives its reason.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(f"export needs the package {error.name}: pip install 'reprism[export]'") from error
    images = torch.zeros(2, 3, *model.preprocessing.size)
    batch = {0: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                _Descriptor(model).eval(), (images,), dynamo=True, dynamic_shapes=[batch], verbose=False
            )
        if program is None:
            raise RuntimeError("the exporter returned nothing")
        program.save(path)
    except Exception as error:  # whatever torch raises about operations that ONNX does not have
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(f"torch cannot export {model.backbone} to ONNX: {reason}") from error


def _compare(model: PartNet, exported: ForeignNet, crops: Tensor) -> Parity:
    images = normalize(model.preprocessing)(crops)
    with torch.inference_mode():
        ours = _describe(model, images, 32)
        few = [_describe(exported, images[: 2 * max(BATCHES)], size) for size in BATCHES[:-1]]
        theirs = _describe(exported, images, max(BATCHES))
    cosines = [(rows * ours[: len(rows)]).sum(1) for rows in (*few, theirs)]
    before, after = torch.cdist(ours, ours), torch.cdist(theirs, theirs)
    for distances in (before, after):
        distances.fill_diagonal_(-1)  # a crop is the nearest to itself, and counts in neither list
    order = after.argsort(1)
    ranked = before.gather(1, order)[:, 1:]
    return Parity(
        crops=len(crops),
        batches=BATCHES,
        least_cosine=float(torch.cat(cosines).min()),
        largest_swap=float((ranked.cummax(1).values - ranked).max()),
        same_nearest=float((order[:, 1] == before.argsort(1)[:, 1]).float().mean()),
    )


def _describe(model: nn.Module, images: Tensor, batch: int) -> Tensor:
    return F.normalize(torch.cat([model(each).descriptor.double() for each in images.split(batch)]), dim=1)
