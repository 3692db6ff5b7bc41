"""Images from disk: one at a time, all at once into memory, or as a torch data set."""

from __future__ import annotations

import copy
import gc
import io
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from os import PathLike
from typing import BinaryIO, Literal

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch.utils.data import Dataset

from reprism.data.image_checks import RefusedError, TooLargeError, check_image, check_is_file
from reprism.data.records import DataError, Sample
from reprism.data.remote import is_address, open_address
from reprism.data.sampling import Draw
from reprism.progress import Count

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""Formats that are decoded. Pillow knows dozens more; some start other programs (EPS) or are little tested."""

MAX_PIXELS = 2**26
"""Largest image decoded: 67 million pixels, two 8K video frames. A file beyond it is taken for an attack."""

_WINDOW = 128  # Images being decoded, or decoded and not yet collected.


class ImageError(DataError):
    """An image file cannot be decoded, whole and as 8-bit colour.

    Attributes:
        reason: Why, without the path.
    """

    # One required argument: a DataLoader raises a worker's error again from its message alone.
    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class ImageTooLargeError(ImageError):
    """An image has more pixels than are decoded."""


def read_image(path: str | PathLike[str]) -> torch.Tensor:
    """Decode an image file: uint8, 3×H×W, RGB, upright (its EXIF orientation applied).

    The path may be an address such as ``s3://bucket/1.jpg`` (:mod:`reprism.data.remote`).

    Grey, palette and CMYK images are converted; transparency is dropped; of an animation the first frame is
    taken. What Pillow detects as damaged is refused. (It does not detect all: a JPEG file with a few bytes
    changed in the middle decodes to a wrong picture.)

    Raises:
        ImageError: The file is missing, no image, of a format outside ``FORMATS``, truncated or corrupt, too large
            (``MAX_PIXELS``, and the limits of :mod:`reprism.data.image_checks`), has more than 8 bits per channel, or
            takes more memory than there is. The message names the file and the reason.
        RuntimeError: Pillow has been told to hand out truncated images as if they were whole.
    """
    name, remedy = f"the image {path}", "Replace the file or take it out of the data."
    if not is_address(path):
        return _decoded(path, name, remedy, FORMATS, MAX_PIXELS)
    try:
        with open_address(str(path)) as file:
            return _decoded(file, name, remedy, FORMATS, MAX_PIXELS)
    except ImageError:
        raise
    except Exception as error:  # each kind of storage has errors of its own
        reason = _reason(error, FORMATS)
    raise ImageError(f"Cannot read {name}: {reason}. {remedy}", reason)


def decode_image(content: bytes, formats: tuple[str, ...] = FORMATS, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Decode an image in memory, such as one that was uploaded, as :func:`read_image` does a file.

    Args:
        content: All of the image's bytes.
        formats: Those of ``FORMATS`` to decode.
        max_pixels: Largest image decoded; found out from its header.

    Returns:
        uint8, 3×H×W, RGB, upright.

    Raises:
        ImageTooLargeError: It has more pixels, or too long a side.
        ImageError: As of :func:`read_image`.
        RuntimeError: As of :func:`read_image`.
    """
    return _decoded(io.BytesIO(content), "the image", "Give a whole one.", formats, max_pixels)


def convert_image(image: Image.Image, name: str = "the image") -> torch.Tensor:
    """Convert an open PIL image as :func:`read_image` does a file; it stays as it is.

    An EXIF orientation that the image still carries is applied. Of an animation, the frame it stands at is taken.

    Args:
        image: Image of any mode with 8 bits per channel.
        name: Its name in errors.

    Returns:
        uint8, 3×H×W, RGB, upright.

    Raises:
        ImageError: It is truncated or corrupt (PIL decodes when it is first looked at), its file was closed, it has
            more than 8 bits per channel, or more than ``MAX_PIXELS``.
        RuntimeError: As of :func:`read_image`.
    """
    return _decoded(image, name, "Convert it, or give another.", FORMATS, MAX_PIXELS)


def _decoded(
    source: str | PathLike[str] | BinaryIO | Image.Image,
    name: str,
    remedy: str,
    formats: tuple[str, ...],
    max_pixels: int,
) -> torch.Tensor:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on: half an image would pass for a whole one. Set it to False."
        )
    kind = ImageError
    try:
        if isinstance(source, str | PathLike):
            check_is_file(source)
        # One that is open already is left open: it is the caller's.
        opened = nullcontext(source) if isinstance(source, Image.Image) else Image.open(source, formats=formats)
        with opened as image:
            check_image(image, max_pixels)
            return _to_tensor(image)
    except Exception as error:  # A decoder raises whatever its parser stumbled over.
        reason = _reason(error, formats)
        if isinstance(error, TooLargeError | Image.DecompressionBombError | Image.DecompressionBombWarning):
            kind = ImageTooLargeError
    raise kind(f"Cannot read {name}: {reason}. {remedy}", reason)


def _to_tensor(image: Image.Image) -> torch.Tensor:
    image = ImageOps.exif_transpose(image)
    if "transparency" in image.info:
        # Of a palette's transparency Pillow would warn, image by image.
        image = image.convert("RGBA")
    array = np.asarray(image.convert("RGB"))
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _reason(error: Exception, formats: Sequence[str]) -> str:
    match error:
        case RefusedError():
            return str(error)
        case MemoryError():
            return "it takes more memory to decode than there is"
        case FileNotFoundError():
            return "there is no such file"
        case DataError():
            return str(error).rstrip(".")
        case UnidentifiedImageError():
            return f"it is not an image of a format that is read ({', '.join(formats)})"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"it has too many pixels ({error})"
        case OSError(strerror=str(text)):
            return text
        case _:
            return f"it is truncated or corrupt ({str(error) or type(error).__name__})"


def check_images(
    samples: Sequence[Sample], progress: Count | None = None
) -> tuple[list[Sample], list[tuple[Sample, str]]]:
    """Decode every image once, with a pool of threads, and keep none.

    Returns:
        The samples that can be read, in their order, and those that cannot, each with the reason.
    """
    readable: list[Sample] = []
    unreadable: list[tuple[Sample, str]] = []
    for sample, outcome in _decode_all(samples, progress):
        if isinstance(outcome, ImageError):
            unreadable.append((sample, outcome.reason))
        else:
            readable.append(sample)
    return readable, unreadable


def _decode_all(
    samples: Sequence[Sample], progress: Count | None
) -> Iterator[tuple[Sample, torch.Tensor | ImageError]]:
    """Yield every sample with its image or its error, in order."""

    def attempt(sample: Sample) -> torch.Tensor | ImageError:
        try:
            return read_image(sample.path)
        except ImageError as error:
            return error

    pool = ThreadPoolExecutor()
    ahead: deque[Future[torch.Tensor | ImageError]] = deque()
    waiting = iter(samples)
    try:
        for done, sample in enumerate(samples, 1):
            # A window, not pool.map(): behind one slow image all the others would pile up in memory.
            ahead.extend(pool.submit(attempt, later) for later in islice(waiting, _WINDOW - len(ahead)))
            yield sample, ahead.popleft().result()
            if progress is not None:
                progress(done, len(samples))
    finally:
        pool.shutdown(cancel_futures=True)


class DecodedImages:
    """Images decoded once, up front, and held in memory: ``images[i]`` is uint8, 3×H×W, RGB.

    All pixels lie in one tensor. Worker processes share it: forked ones as they are, spawned ones because
    torch moves a tensor to shared memory (``/dev/shm``, which must have room) when it is first sent.
    Market-1501's training part takes 318 MB.

    Args:
        samples: Images to decode.
        on_error: ``raise`` at the first image that cannot be read, or ``skip`` it.
        progress: Called as ``progress(done, total)`` after each image.

    Attributes:
        samples: The samples held: ``images[i]`` is the image of ``samples[i]``.
        unreadable: The samples skipped, each with the reason.

    Raises:
        ImageError: An image cannot be read, with ``on_error="raise"``.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        on_error: Literal["raise", "skip"] = "raise",
        progress: Count | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'skip'.")
        self.samples: list[Sample] = []
        self.unreadable: list[tuple[Sample, str]] = []
        # A growing bytearray needs neither the sizes beforehand nor a second copy of everything at the end.
        pixels = bytearray()
        offsets: list[int] = []
        shapes: list[torch.Size] = []
        for sample, outcome in _decode_all(samples, progress):
            if isinstance(outcome, ImageError):
                if on_error == "raise":
                    raise outcome
                self.unreadable.append((sample, outcome.reason))
                continue
            self.samples.append(sample)
            offsets.append(len(pixels))
            shapes.append(outcome.shape)
            pixels += outcome.numpy().tobytes()
        self._pixels = torch.frombuffer(pixels, dtype=torch.uint8) if pixels else torch.empty(0, dtype=torch.uint8)
        self._offsets = torch.tensor(offsets, dtype=torch.int64)
        self._shapes = torch.tensor(shapes, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Image ``index``, a view of the shared pixels: not to be written to."""
        channels, height, width = self._shapes[index].tolist()
        start = int(self._offsets[index])
        return self._pixels[start : start + channels * height * width].view(channels, height, width)

    @property
    def nbytes(self) -> int:
        """Memory taken by the pixels, in bytes."""
        return self._pixels.nbytes


class ImageSet(Dataset[tuple[torch.Tensor, int]]):
    """Samples as a torch data set of ``(image, label)``.

    A key is an index, or a ``Draw``: an index with the seed of its augmentation. For a ``Draw`` the transform
    runs with torch's CPU generator seeded by it, and the generator is put back afterwards. So the
    augmentation depends on the draw alone, neither on the number of workers nor on where a resumed run began.

    Args:
        samples: The images.
        transform: Function from uint8 3×H×W to tensors of one size, such as the float ones a network takes. It must
            not write to its input, and must take its randomness from torch.
        labels: A class for each sample. Without them, an item's label is its index.
        cache: ``none`` decodes an image each time it is asked for; ``ram`` decodes all of them here, once.
            Images decoded earlier can be given instead; they must be those of ``samples``.
        progress: With ``ram``, called as ``progress(done, total)`` after each image.

    Raises:
        ValueError: The labels or the decoded images do not belong to the samples, or ``cache`` is no such
            thing.
        ImageError: An image cannot be read: here with ``ram``, when it is asked for with ``none``.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Callable[[torch.Tensor], torch.Tensor],
        labels: Sequence[int] | None = None,
        cache: Literal["none", "ram"] | DecodedImages = "none",
        *,
        progress: Count | None = None,
    ) -> None:
        if labels is not None and len(labels) != len(samples):
            raise ValueError(f"{len(labels)} labels were given for {len(samples)} samples; each sample needs one.")
        self.samples = list(samples)
        self.transform = transform
        self.labels = None if labels is None else [int(label) for label in labels]
        self._decoded: DecodedImages | None
        if isinstance(cache, DecodedImages):
            if cache.samples != self.samples:
                raise ValueError(
                    f"The {len(cache)} decoded images are not those of the {len(self.samples)} samples. "
                    "Pass the decoded images' own .samples."
                )
            self._decoded = cache
        elif cache == "ram":
            self._decoded = DecodedImages(self.samples, progress=progress)
        elif cache == "none":
            self._decoded = None
        else:
            raise ValueError(f"cache is {cache!r}; it must be 'none', 'ram' or DecodedImages.")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Draw) -> tuple[torch.Tensor, int]:
        if isinstance(key, Draw):
            index = key.index
            image = self._image(index)
            # What torch.random.fork_rng and torch.manual_seed do for the CPU, at 4 instead of 140 µs an
            # image: those also see to every other device.
            generator = torch.default_generator
            state = generator.get_state()
            try:
                generator.manual_seed(key.seed)
                image = self.transform(image)
            finally:
                generator.set_state(state)
        else:
            index = key
            image = self.transform(self._image(index))
        return image, index if self.labels is None else self.labels[index]

    def transformed(self, transform: Callable[[torch.Tensor], torch.Tensor]) -> ImageSet:
        """Return the same images and labels with another transform, from uint8 3×H×W to tensors of one size."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def _image(self, index: int) -> torch.Tensor:
        return read_image(self.samples[index].path) if self._decoded is None else self._decoded[index]


def prepare_worker(_: int) -> None:
    """Prepare a loader's worker process (``worker_init_fn``).

    It lives on where Ctrl-C and SIGTERM reach the whole group: its parent decides, which may want a last batch of it;
    and the worker has no traceback to print. It never frees what its parent had left to the garbage collector before
    the fork: a decoder of videos would wait there for ever for threads that only the parent has.
    """
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not for ever: its parent ends it by SIGTERM too, if all else fails.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))
