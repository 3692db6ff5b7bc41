"""Rows that crowd together far from the origin: their distances survive float32 only if they are centred first.

‖g‖² − 2·q·g is a difference of large numbers where all rows have much in common. Taking one vector from both sides
changes no distance, and leaves numbers of the distances' own size.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

_SAMPLE = 256  # rows, evenly spaced, that stand for all
_FEWEST_ROWS = 32  # fewer do not show how a network describes people
# Squared, in units of the middle row's length. At a half, centring spares float32 the loss of some two bits.
_CROWDED = 0.5**2
# Seen on photographs: 0.19 to 0.47 of wholly untrained networks, 0.76 with ImageNet weights and untrained heads.
_COLLAPSED = 0.1**2


def center_of(gallery: Tensor) -> Tensor | None:
    """Return a row amid the gallery if centring there gains precision, else None.

    It does where more than half of the rows lie closer to that row than half its length. The centre is one of the
    rows, not their mean: differences to it round little or not at all, so that equal distances stay equal.

    Args:
        gallery: M×D, of any floating-point type.

    Returns:
        D float64 on the CPU, or None.
    """
    center, spread = _middle(gallery)
    return center if spread < _CROWDED else None


def centered(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sides less :func:`center_of` the gallery, which changes no distance between their rows.

    Where nothing is gained they are returned as they are. The caller's tensors are never changed.

    Args:
        query: N×D, of any floating-point type.
        gallery: M×D, likewise.

    Returns:
        N×D and M×D; where they were centred both are float32, or float64 if either was.
    """
    center = center_of(gallery)
    if center is None:
        return query, gallery
    dtype = torch.float64 if torch.float64 in (query.dtype, gallery.dtype) else torch.float32
    return query.to(dtype) - center.to(query.device, dtype), gallery.to(dtype) - center.to(gallery.device, dtype)


def warn_of_collapse(gallery: Tensor) -> None:
    """Warn if more than half of the gallery lies closer to its middle row than a tenth of that row's length.

    That is a cosine of about 0.995: such descriptors hardly tell people apart. Galleries of fewer than 32 rows are
    not looked at.
    """
    if len(gallery) >= _FEWEST_ROWS and _middle(gallery)[1] < _COLLAPSED:
        # One text whatever the figures: Python shows it once for all trials of a protocol.
        warnings.warn(
            "the descriptors have collapsed: most of the gallery lies within a tenth of a descriptor's length of one "
            "point (cosine above 0.995). Such descriptors hardly tell people apart. Likely causes are a training that "
            "collapsed (try a lower learning rate), weights that were not loaded, and images in another colour order "
            "(BGR) or normalised otherwise than in training.",
            stacklevel=4,  # the caller of `evaluate`, which is wrapped for its old arguments
        )


def _middle(rows: Tensor) -> tuple[Tensor, float]:
    """Return the row nearest to the mean, float64, and the spread about it.

    The spread is the median squared distance to that row, in units of its squared length: NaN or infinite where rows
    are not finite or too long to tell. A few rows far away hide nothing: the nearest to the mean is none of them.
    """
    sample = rows[:: -(-len(rows) // _SAMPLE)].cpu().double()
    center = sample[(sample - sample.mean(0)).square().sum(1).argmin()]
    squared_length = center.square().sum()
    spread = (sample - center).square().sum(1).sort().values[len(sample) // 2] / squared_length
    return center, float(spread) if torch.isfinite(squared_length) else torch.inf
