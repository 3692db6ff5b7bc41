"""Describe pictures: the one place where resizing, normalising, mirroring and the L2 norm live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from reprism.data.images import ImageSet, convert_image, prepare_worker, read_image
from reprism.data.records import Item, Sample, Tracklet
from reprism.data.tracklets import TrackletSet
from reprism.data.transforms import Preprocessing, normalize, resize
from reprism.data.video import VideoSettings, choose_frames
from reprism.deprecation import renamed
from reprism.engines.onnx import load_onnx
from reprism.engines.opening import open_model
from reprism.engines.session import Engine
from reprism.models.checkpoint import fingerprint
from reprism.models.foreign import ForeignNet
from reprism.models.network import PartNet
from reprism.precision import Precision, autocast, usable_device
from reprism.progress import Count

Picture = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class DescriptorKind:
    """Model and settings that descriptors were made by: only descriptors of one kind can be compared.

    Attributes:
        fingerprint: The network's (:func:`reprism.models.checkpoint.fingerprint`).
        partition: Its notation, which says what part a column belongs to.
        dim: Columns of a descriptor.
        flip: True if descriptors include the mirrored image.
    """

    fingerprint: str
    partition: str
    dim: int
    flip: bool


__getattr__ = renamed(__name__, pool_runs="reprism.embedding:pool_segments")


def pool_segments(rows: Tensor, settings: VideoSettings) -> Tensor:
    """Pool the descriptors of a tracklet's frames into the tracklet's descriptor.

    Args:
        rows: T×D, the frames' descriptors, in order; T at least ``settings.segments``.
        settings: ``segments`` and ``pooling``.

    Returns:
        segments·D: the segments' descriptors side by side. They are not normalised: a segment whose frames disagree is
        shorter.
    """
    parts = torch.tensor_split(rows, settings.segments)
    return torch.cat([part.mean(0) if settings.pooling == "mean" else part.amax(0) for part in parts])


def describe(model: PartNet | ForeignNet, images: Tensor, flip: bool = True) -> Tensor:
    """Describe normalised images: f(image) + f(mirrored image), then one L2 norm over all columns.

    Args:
        model: A network in eval mode.
        images: B×3×H×W, normalised as the model's preprocessing says.
        flip: Add the mirrored image's descriptor (the released code's test protocol).

    Returns:
        B×descriptor_dim float32, rows of length 1.
    """
    descriptor = model(images).descriptor
    if flip:
        descriptor = descriptor + model(images.flip(-1)).descriptor
    return F.normalize(descriptor.float(), dim=1)


class Embedder:
    """Turns pictures of people into descriptors that Euclidean distance (or cosine similarity) compares.

    One input convention: **RGB**, people upright and filling the picture, as a detector crops them.

    Args:
        model: A file that ``reprism.load`` reads, a folder that ``reprism export`` wrote, an ONNX file
            (:meth:`from_onnx`), a network, or (with
            ``preprocessing``) any function or module that takes a B×3×H×W batch and returns B×D descriptors. A network
            is copied and stays as it is: weights, mode, device and memory format. After further training, build another
            embedder. The copy takes as much memory as the weights; a file has none.
        batch_size: Pictures at a time; bounds the memory used.
        flip: Add the mirrored picture's descriptor, as the field's test protocol does (twice the work).
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: the fastest that the device's hardware has. A file of
            half-precision or 8-bit numbers has its own, which ``auto`` takes.
        device: Such as ``cuda`` or ``cpu`` (default: a GPU where there is one).
        preprocessing: Size, mean and deviation of the images that a function or somebody else's module takes. A
            Reprism network has its own.
        engine: ``torch``, ``openvino``, ``onnxruntime``, or ``auto``: the fastest that is installed and gives the same
            descriptors. On a CPU that is OpenVINO, to which a Reprism network is converted here, which takes seconds;
            on a GPU PyTorch.

    Attributes:
        model: The network: its parts, preprocessing and identity.
        engine: Engine that runs it.
        precision: Number format that it computes in.
        device: Device that it runs on.

    Raises:
        CheckpointError: ``model`` is a file that cannot be loaded.
        ConversionError: The engine asked for cannot run this network.
        TypeError: ``model`` does not return B×D floating-point numbers.
        ValueError: A function or module comes without its ``preprocessing``, or a Reprism network with one; or the
            engine, the precision or ``flip`` does not suit the model.
    """

    def __init__(
        self,
        model: PartNet | nn.Module | Callable[[Tensor], Tensor] | str | PathLike[str],
        batch_size: int = 64,
        flip: bool = True,
        precision: Precision = "auto",
        device: str | torch.device | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        engine: Engine = "auto",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, it is {batch_size}")
        opened = open_model(model, preprocessing, usable_device(device), precision, engine)
        self.model: PartNet | ForeignNet = opened.net
        self.engine, self.precision, self.device = opened.engine, opened.precision, opened.device
        self._runs = opened.runs
        self._mirrored = isinstance(opened.runs, ForeignNet) and opened.runs.mirrored
        if self._mirrored and not flip:
            raise ValueError("the mirrored image is part of this exported network: it describes with flip=True only")
        self.batch_size = batch_size
        self.flip = flip
        self.resize = resize(opened.net.preprocessing)
        self._normalize = normalize(opened.net.preprocessing)

    @classmethod
    def from_onnx(
        cls,
        path: str | PathLike[str],
        size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        interpolation: str | None = None,
        bgr: bool | None = None,
        batch_size: int = 64,
        flip: bool = True,
        precision: Precision = "auto",
        device: str | torch.device | None = None,
        engine: Engine = "auto",
    ) -> Embedder:
        """Make an embedder of anybody's network in an ONNX file.

        Args:
            path: A file with one input, B×3×H×W, whose first output is B×D descriptors.
            size: Height and width of its images in pixels.
            mean, std: Mean and standard deviation of red, green and blue over pixels scaled to 0 … 1. For a network
                that takes 0 … 255, give 0 and 1/255.
            interpolation: ``bicubic`` (default) or ``bilinear``.
            bgr: The network takes the channels in the order blue, green, red (default: no).
            batch_size, flip, precision, device, engine: As for :class:`Embedder`; ``engine`` is ``auto``,
                ``onnxruntime`` or ``openvino``.

        Arguments left out are read from the YAML file beside it, ``model.yaml`` for ``model.onnx``; the size also from
        the ONNX file.

        Raises:
            CheckpointError: The file is missing, damaged or no network of images; its preprocessing is not known or
                does not fit; or no engine is installed.
            UnsuitableError: The engine does not run the file in this precision.
        """
        where = usable_device(device)
        form: dict[str, Any] = {"size": size, "mean": mean, "std": std, "interpolation": interpolation, "bgr": bgr}
        net = load_onnx(Path(path), **form, device=where, precision=precision, engine=engine)
        # Checked again: ONNX Runtime takes the file's own numbers, whatever was asked for.
        return cls(net, batch_size, flip, precision, where)

    def __repr__(self) -> str:
        flip = "with" if self.flip else "without"
        return f"Embedder({self.model!r}, {flip} mirrored image, {self.engine}, {self.precision}, {self.device})"

    @property
    def descriptor_dim(self) -> int:
        """Columns of a descriptor."""
        return self.model.descriptor_dim

    @cached_property
    def kind(self) -> DescriptorKind:
        """Model and settings of the descriptors. (Not the precision: it moves them by less than pictures differ.)

        Raises:
            ValueError: The model is a function, which has no weights to be told from others by.
        """
        model = self.model
        if isinstance(model, ForeignNet) and not model.has_identity:
            raise ValueError(
                f"{model.backbone} has no weights to be told from other networks by: give a torch.nn.Module that holds "
                "them"
            )
        return DescriptorKind(fingerprint(model), str(model.partition), model.descriptor_dim, self.flip)

    @cached_property
    def original_kind(self) -> DescriptorKind | None:
        """Kind of the descriptors of the network that this one was exported from; None if it is no export."""
        original = self.model.original if isinstance(self.model, ForeignNet) else None
        return None if original is None else replace(self.kind, fingerprint=original)

    def embed(self, images: Iterable[Picture] | Tensor) -> np.ndarray:
        """Describe pictures, in their order.

        Args:
            images: Paths, PIL images, and H×W×3 uint8 RGB arrays, mixed as you like and of any sizes; or one
                B×3×H×W RGB tensor, uint8 or floating point in 0…1 (not normalised: that is done here). A PIL image is
                read as its file is: its EXIF orientation is applied, more than 8 bits per channel are refused.

        Returns:
            N×descriptor_dim float32, rows of length 1.

        Raises:
            ImageError: A file or PIL image is no readable picture; names it.
            TypeError, ValueError: Something else than the above was given; names its index.
        """
        if isinstance(images, str | Path | Image.Image):
            raise TypeError(f"expected a sequence of images, got one {type(images).__name__}: give [image]")
        rows: list[Tensor] = []
        for batch in _batches(enumerate(images), self.batch_size):
            ready = torch.stack([self.resize(_as_uint8(picture, index)) for index, picture in batch])
            rows.append(self.embed_ready(ready))
        return torch.cat(rows).numpy() if rows else np.zeros((0, self.descriptor_dim), np.float32)

    def embed_ready(self, images: Tensor) -> Tensor:
        """Describe images that ``resize`` was applied to already, such as in other threads or processes.

        Args:
            images: B×3×height×width uint8 of the network's size, at most as many as memory has room for.

        Returns:
            B×descriptor_dim float32 on the CPU, rows of length 1.

        Raises:
            TypeError: They are not uint8, such as normalised already.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images of {images.dtype} were given; expected uint8, as `resize` gives it")
        # Normalised here: of a batch, where the network is, that takes a fraction of what it takes image by image.
        images = self._normalize(images.to(self.device))
        if self.engine != "torch":
            with torch.inference_mode():
                return describe(self._runs, images, self.flip and not self._mirrored).cpu()
        with torch.inference_mode(), autocast(self.device, self.precision):
            return describe(self._runs, images.to(memory_format=torch.channels_last), self.flip).cpu()

    def embed_boxes(self, frame: Picture, boxes: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Describe the people that a tracker or detector found in one frame.

        Args:
            frame: One RGB picture, as :meth:`embed` takes them.
            boxes: N×4 in pixels: left, top, right, bottom (xyxy). What lies outside the frame is cut off.

        Returns:
            N×descriptor_dim float32, rows of length 1.

        Raises:
            ValueError: Boxes of another shape, not finite, or with nothing inside the frame; names the row.
        """
        image = _as_uint8(frame, 0)
        corners = np.asarray(boxes, dtype=np.float64)
        if corners.size == 0:
            return np.zeros((0, self.descriptor_dim), np.float32)
        if corners.ndim != 2 or corners.shape[1] != 4:
            raise ValueError(
                f"boxes must be N×4 (left, top, right, bottom), they are {'×'.join(map(str, corners.shape))}"
            )
        height, width = image.shape[1:]
        crops = []
        for row, (left, top, right, bottom) in enumerate(corners):
            if not np.isfinite(corners[row]).all():
                raise ValueError(f"box {row} is not finite: {corners[row].tolist()}")
            x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
            x1, y1 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
            if x1 <= x0 or y1 <= y0:
                raise ValueError(
                    f"box {row} {corners[row].tolist()} covers nothing of the {height}×{width} frame; boxes are "
                    "left, top, right, bottom in pixels (xyxy, not xywh)"
                )
            crops.append(image[:, y0:y1, x0:x1].permute(1, 2, 0).numpy())
        return self.embed(crops)

    def embed_samples(
        self,
        samples: Sequence[Sample],
        *,
        workers: int = 0,
        progress: Count | None = None,
    ) -> np.ndarray:
        """Describe a data set's images, decoded by ``workers`` processes beside the network.

        Args:
            samples: Images, such as a split of a data set.
            workers: Processes that decode; 0 decodes in this one.
            progress: Called with the number done and the number of all after every batch.

        Returns:
            N×descriptor_dim float32, rows of length 1, in the samples' order.

        Raises:
            ImageError: A file is no readable picture; names it.
        """
        images = ImageSet(samples, self.resize)
        loader = DataLoader(images, self.batch_size, num_workers=workers, worker_init_fn=prepare_worker)
        out = np.empty((len(samples), self.descriptor_dim), np.float32)
        done = 0
        for batch, _ in loader:
            out[done : done + len(batch)] = self.embed_ready(batch).numpy()
            done += len(batch)
            if progress is not None:
                progress(done, len(samples))
        return out

    def embed_tracklet(self, frames: Iterable[Picture] | Tensor, video: VideoSettings | None = None) -> np.ndarray:
        """Describe one tracklet.

        Args:
            frames: Its pictures in the order of time, at least one, as :meth:`embed` takes them. Of a sequence that
                has a length, only the chosen frames are looked at.
            video: Choice of frames, and how they are joined (default: the paper's: 15, even, 3 segments, mean).

        Returns:
            segments·descriptor_dim float32.

        Raises:
            ValueError: There is no frame; and what :meth:`embed` raises.
        """
        video = video or VideoSettings()
        given: Any = frames if hasattr(frames, "__getitem__") else list(frames)
        if len(given) == 0:
            raise ValueError("a tracklet without a frame has no descriptor")
        chosen = choose_frames(len(given), video.frames, video.sampling, np.random.default_rng((video.seed, 0)))
        once = dict.fromkeys(chosen)  # short tracklets repeat their last frame: it is embedded once
        rows = dict(zip(once, torch.from_numpy(self.embed([given[index] for index in once])), strict=True))
        return pool_segments(torch.stack([rows[index] for index in chosen]), video).numpy()

    def embed_tracklets(
        self,
        tracklets: Sequence[Tracklet],
        video: VideoSettings | None = None,
        *,
        workers: int = 0,
        progress: Count | None = None,
    ) -> np.ndarray:
        """Describe a data set's tracklets, one tracklet's frames at a time.

        Beside the result, memory holds a few tracklets' frames (``batch_size`` frames at once in the network), however
        many tracklets there are.

        Args:
            tracklets: Tracklets, such as a split of a data set.
            video: As in :meth:`embed_tracklet`.
            workers: Processes that decode; 0 decodes in this one.
            progress: Called with the number done and the number of all after every tracklet.

        Returns:
            N×(segments·descriptor_dim) float32, in the tracklets' order.

        Raises:
            ImageError: A frame is no readable picture; names it.
        """
        video = video or VideoSettings()
        frames = TrackletSet(tracklets, self.resize, video)
        out = np.empty((len(tracklets), video.segments * self.descriptor_dim), np.float32)
        loader = DataLoader(frames, batch_size=None, num_workers=workers, worker_init_fn=prepare_worker)
        for done, (images, _) in enumerate(loader):
            rows = torch.cat([self.embed_ready(some) for some in images.split(self.batch_size)])
            out[done] = pool_segments(rows, video).numpy()
            if progress is not None:
                progress(done + 1, len(tracklets))
        return out

    def embed_items(
        self,
        items: Sequence[Item],
        video: VideoSettings | None = None,
        *,
        workers: int = 0,
        progress: Count | None = None,
    ) -> np.ndarray:
        """Describe a split of a data set: images (:meth:`embed_samples`) or tracklets (:meth:`embed_tracklets`).

        Raises:
            ValueError: Images and tracklets are mixed.
            ImageError: A file is no readable picture; names it.
        """
        images = [item for item in items if isinstance(item, Sample)]
        tracklets = [item for item in items if isinstance(item, Tracklet)]
        if images and tracklets:
            raise ValueError(f"{len(images)} images and {len(tracklets)} tracklets are mixed: embed them one by one")
        if tracklets:
            return self.embed_tracklets(tracklets, video, workers=workers, progress=progress)
        return self.embed_samples(images, workers=workers, progress=progress)


def _batches(items: Iterable[tuple[int, Picture]], size: int) -> Iterator[list[tuple[int, Picture]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _as_uint8(picture: Picture, index: int) -> Tensor:
    """Any accepted picture as uint8 3×H×W RGB."""
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    if isinstance(picture, Image.Image):
        return convert_image(picture, f"image {index}")
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
            raise ValueError(
                f"image {index} is an array of shape {picture.shape} and type {picture.dtype}; expected H×W×3 uint8, "
                "RGB (an OpenCV frame is BGR: give frame[..., ::-1])"
            )
        # A copy: read-only and reversed arrays (frame[..., ::-1]) are none that torch can look into.
        return torch.from_numpy(np.array(picture, order="C")).permute(2, 0, 1)
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape:
            raise ValueError(f"image {index} is a tensor of shape {tuple(picture.shape)}; expected 3×H×W")
        if picture.dtype == torch.uint8:
            return picture.cpu()
        if picture.is_floating_point():
            low, high = float(picture.min()), float(picture.max())
            if not (low >= 0.0 and high <= 1.0):
                raise ValueError(
                    f"image {index} is a floating-point tensor with values {low:.3g}…{high:.3g}; expected 0…1 (give "
                    "pixels as they are: normalising by mean and deviation is done here)"
                )
            return (picture.cpu().float() * 255).round().to(torch.uint8)
    raise TypeError(
        f"image {index} is a {type(picture).__name__}"
        + (f" of {picture.dtype}" if isinstance(picture, Tensor) else "")
        + "; expected paths, PIL images, H×W×3 uint8 arrays or a B×3×H×W tensor"
    )
