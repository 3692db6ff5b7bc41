"""Somebody's network in an ONNX file, run by ONNX Runtime.

A small YAML file of the same name beside it has the preprocessing that it was trained with::

    size: [256, 128]               # height and width in pixels; may be left out if the file fixes them
    mean: [0.485, 0.456, 0.406]    # of red, green and blue, of pixels scaled to 0 … 1
    std: [0.229, 0.224, 0.225]
    interpolation: bicubic         # or bilinear (default: bicubic)
    bgr: false                     # true for a network that takes blue, green, red (default: false)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from reprism.data.transforms import Preprocessing
from reprism.models.checkpoint import CheckpointError
from reprism.models.foreign import ForeignNet

_FIELDS = ("size", "mean", "std", "interpolation", "bgr")
_TYPES = {"tensor(float)": ("fp32", np.float32), "tensor(float16)": ("fp16", np.float16)}


class OnnxNetwork:
    """A network in an ONNX file, called with a B×3×H×W batch; it returns B×D descriptors.

    The file may fix its batch size: longer batches are cut, and shorter ones filled up. It may have further outputs:
    the first one counts.

    Args:
        path: An ONNX file with one input, of B×3×H×W floating-point numbers.
        bgr: The network takes the channels in the order blue, green, red.
        device: Device to run on, if ONNX Runtime has been installed for it; otherwise the CPU.

    Attributes:
        digest: 64 hexadecimal digits of the contents, with weights in files beside it, and the order of channels.
        precision: Number format of its input, ``fp32`` or ``fp16``.
        size: Height and width that the file fixes; None for those that it leaves open.
        device: Device that it runs on.

    Raises:
        CheckpointError: The file is missing or damaged, its input is of another form, or ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path, bgr: bool = False, device: str | torch.device = "cpu") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"no model at {self.path}: there is no such file")
        self._session = _session(self.path, torch.device(device))
        self.device = torch.device("cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu")
        given = self._session.get_inputs()
        if len(given) != 1:
            names = ", ".join(f"{one.name} {one.shape}" for one in given)
            raise CheckpointError(f"{self.path} takes {len(given)} inputs ({names}); expected one, of images")
        self._input, shape = given[0].name, given[0].shape
        channels = shape[1] if len(shape) == 4 else 0
        if given[0].type not in _TYPES or (isinstance(channels, int) and channels != 3):
            raise CheckpointError(
                f"{self.path} takes {given[0].type} of shape {shape}; expected B×3×H×W floating-point numbers"
            )
        self.precision, self._dtype = _TYPES[given[0].type]
        self._batch, _, *sides = (side if isinstance(side, int) and side > 0 else None for side in shape)
        self.size: tuple[int | None, int | None] = (sides[0], sides[1])
        self.bgr = bgr
        digest = hashlib.sha256(b"bgr" if bgr else b"rgb")
        for file in (self.path, *_weight_files(self.path)):
            digest.update(file.read_bytes())
        self.digest = digest.hexdigest()

    def __repr__(self) -> str:
        return f"OnnxNetwork({self.path.name}, {self.precision}, {self.device})"

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        return self  # nothing in it changes, and a session cannot be copied

    def __call__(self, images: Tensor) -> Tensor:
        """Describe a batch.

        Args:
            images: B×3×H×W, normalised.

        Returns:
            B×D float32, on the images' device.

        Raises:
            CheckpointError: The network does not run on them, or returns something else than B×D numbers.
        """
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        if self.bgr:
            pixels = pixels[:, ::-1]
        pixels = pixels.astype(self._dtype, order="C", copy=False)
        size = self._batch or max(1, len(pixels))
        rows = [self._run(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        return torch.from_numpy(np.concatenate(rows)).to(images.device)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        count = len(pixels)
        if self._batch and count < self._batch:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self._batch - count, axis=0)])
        try:
            (found, *_) = self._session.run(None, {self._input: pixels})
        except Exception as error:  # ONNX Runtime raises many kinds, of its own and of Python's
            raise CheckpointError(
                f"{self.path} does not run on a batch of {'×'.join(map(str, pixels.shape))}: {_one_line(error)}"
            ) from error
        rows = np.asarray(found)
        if rows.ndim < 2 or len(rows) != len(pixels) or rows[0].size != rows.shape[1]:
            raise CheckpointError(
                f"{self.path} returns {'×'.join(map(str, rows.shape))} for {len(pixels)} images; expected B×D, a "
                "descriptor for each: export the layer before the classifier as the first output"
            )
        return rows.reshape(len(rows), -1)[:count].astype(np.float32)


def load_onnx(
    path: str | Path,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    interpolation: str | None = None,
    bgr: bool | None = None,
    device: str | torch.device = "cpu",
) -> ForeignNet:
    """Load an ONNX file as a network of one part.

    Args:
        path: The ONNX file.
        size, mean, std, interpolation, bgr: Preprocessing of its images. Those not given are read from the YAML file
            beside it (``model.yaml`` for ``model.onnx``).
        device: Device to run on.

    Raises:
        CheckpointError: The file is missing, damaged or no network of images; its preprocessing is not known, out of
            range, or at odds with the size that the file fixes; or ONNX Runtime is not installed.
    """
    path = Path(path)
    given = {"size": size, "mean": mean, "std": std, "interpolation": interpolation, "bgr": bgr}
    values = _written(path) | {name: value for name, value in given.items() if value is not None}
    network = OnnxNetwork(path, values.pop("bgr", False), device)
    if "size" not in values and None not in network.size:
        values["size"] = network.size
    missing = [name for name in ("size", "mean", "std") if name not in values]
    if missing:
        raise CheckpointError(
            f"{path}: the images' {' and '.join(missing)} in training are not known. Write {path.with_suffix('.yaml')} "
            "with, for example, size: [256, 128], mean: [0.485, 0.456, 0.406] and std: [0.229, 0.224, 0.225], a line "
            "each; or in Python give them to Embedder.from_onnx"
        )
    try:
        preprocessing = Preprocessing(**values)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if any(fixed not in (None, side) for fixed, side in zip(network.size, preprocessing.size, strict=True)):
        fixed_size = "×".join(str(side or "any") for side in network.size)
        raise CheckpointError(
            f"{path} takes images of {fixed_size} pixels (height×width), and its preprocessing says "
            f"{'×'.join(map(str, preprocessing.size))}"
        )
    return ForeignNet(network, preprocessing)


def _written(path: Path) -> dict[str, Any]:
    """Return the fields of the YAML file beside a model; none if there is no such file."""
    beside = next((file for suffix in (".yaml", ".yml") if (file := path.with_suffix(suffix)).is_file()), None)
    if beside is None:
        return {}
    try:
        values = yaml.safe_load(beside.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{beside} is no YAML: {_one_line(error)}") from error
    if not isinstance(values, dict) or not set(values) <= set(_FIELDS):
        names = sorted(map(str, set(values) - set(_FIELDS))) if isinstance(values, dict) else [type(values).__name__]
        raise CheckpointError(f"{beside}: expected the fields {', '.join(_FIELDS)}, got {', '.join(names)}")
    if not isinstance(values.get("bgr", False), bool):
        raise CheckpointError(f"{beside}: expected bgr: true or bgr: false, got {values['bgr']!r}")
    return values


def _session(path: Path, device: torch.device) -> Any:
    try:
        import onnx  # noqa: F401  # read for the digest, once the file is known to be whole
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(f"{path} needs the package {error.name}: pip install 'reprism[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; they are raised too
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    here = onnxruntime.get_available_providers()
    providers = [one for one in wanted if one in here] + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises many kinds, of its own and of Python's
        raise CheckpointError(f"{path} is no ONNX model that ONNX Runtime can run: {_one_line(error)}") from error


def _weight_files(path: Path) -> list[Path]:
    """Return the files beside a model that hold weights of it, sorted."""
    import onnx

    def locations(message: Any) -> Iterator[str]:
        if isinstance(message, onnx.TensorProto):
            yield from (entry.value for entry in message.external_data if entry.key == "location")
            return
        # Tensors lie in graphs, and in attributes of nodes, which may hold graphs again.
        for field, value in message.ListFields():
            if field.message_type is not None:
                for each in [value] if isinstance(value, field.message_type._concrete_class) else value:
                    yield from locations(each)

    return sorted({path.parent / name for name in locations(onnx.load(path, load_external_data=False))})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
