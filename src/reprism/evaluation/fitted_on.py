"""Record what a calibration was fitted on, which is all that it may be used on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from reprism.data.video import VideoSettings

Rows = Literal["images", "segments", "pooled", "mixed"]
"""Kinds of descriptors: ``images``; tracklets, their ``segments`` side by side; tracklets ``pooled`` as a gallery
has them, the mean of the frames' descriptors brought to length 1; or ``mixed``, images and pooled tracklets."""

_IN_WORDS = {
    "images": "images",
    "segments": "tracklets, segments side by side",
    "pooled": "tracklets, each pooled into one descriptor of length 1",
    "mixed": "images and pooled tracklets",
}


@dataclass(frozen=True)
class Segments:
    """The settings by which tracklets were described, their segments side by side.

    Attributes:
        frames, sampling, segments, pooling: As in :class:`reprism.data.video.VideoSettings`.
        comparison: ``concatenate``: one Euclidean distance over the segments side by side.
    """

    frames: int
    sampling: str
    segments: int
    pooling: str
    comparison: Literal["concatenate"] = "concatenate"


@dataclass(frozen=True)
class FittedOn:
    """The distances that a calibration was fitted on; it holds for no others.

    Attributes:
        fingerprint: The model's (:func:`reprism.models.checkpoint.fingerprint`).
        flip: True if descriptors include the mirrored image.
        queries: Kind of the queries.
        rows: Kind of the gallery rows.
        segments: Settings of tracklets' descriptors, where ``queries`` and ``rows`` are ``segments``.
        projection: Digest of the projection of a compressed gallery.
        engine: Program that ran the model; noted only, for distances by another are the same.
    """

    fingerprint: str
    flip: bool
    queries: Rows = "images"
    rows: Rows = "images"
    segments: Segments | None = None
    projection: str | None = None
    engine: str = field(default="torch", compare=False)

    @classmethod
    def of_dataset(
        cls, fingerprint: str, flip: bool, video: VideoSettings | None = None, engine: str = "torch"
    ) -> FittedOn:
        """Describe the descriptors of a data set: of its images, or with ``video`` of its tracklets."""
        if video is None:
            return cls(fingerprint, flip, engine=engine)
        segments = Segments(video.frames, video.sampling, video.segments, video.pooling)
        return cls(fingerprint, flip, "segments", "segments", segments, engine=engine)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FittedOn:
        """Read what ``dataclasses.asdict`` wrote.

        Raises:
            TypeError: A field is missing or unknown.
        """
        segments = values.get("segments")
        if segments is None:
            return cls(**values)
        # Calibrations of earlier versions call the number of segments "runs".
        renamed = {"segments" if name == "runs" else name: value for name, value in segments.items()}
        return cls(**values | {"segments": Segments(**renamed)})

    def differences(self, other: FittedOn) -> list[str]:
        """Say in words where the two differ: ``flip: expected True, got False``, this one's value being expected."""
        return [
            f"{one.name}: expected {_in_words(ours)}, got {_in_words(theirs)}"
            for one in fields(self)
            if one.compare and (ours := getattr(self, one.name)) != (theirs := getattr(other, one.name))
        ]


def _in_words(value: object) -> str:
    if isinstance(value, Segments):
        return (
            f"{value.frames} frames ({value.sampling}) in {value.segments} segments, {value.pooling} of each, "
            f"compared by {value.comparison}"
        )
    if value is None:
        return "none"
    text = str(value)
    # A digest is told from another by its beginning.
    return _IN_WORDS.get(text, text[:12] if len(text) == 64 else text)
