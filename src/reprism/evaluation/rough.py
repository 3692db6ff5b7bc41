"""Products of descriptors in few bits, for a fraction of the float32 product's time, and how far they can be off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from reprism.precision import fastest_precision

_HALF_ULP = {torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}
"""Half the distance from 1 to the next number."""

_TILE_ELEMENTS = 2**17  # that stay in a core's cache
_LARGEST = 127  # of 8 bits
_FINER = 2 * _LARGEST  # what 8 bits leave is at most half a step: these many finer steps
_MOST_COLUMNS = 2**16  # of which two products of 8 bits still add up in 32


class Rough(Protocol):
    """A way to fill a block with rough distances.

    Attributes:
        cost: Its time, of the float32 product's.
        bytes_per_column: Working memory per column of a gallery row.
    """

    cost: float
    bytes_per_column: int

    def write(self, out: Tensor, some: Tensor, gallery: Tensor, norms: Tensor) -> None:
        """Write ``norms - 2 · some · gallery`` to ``out``, roughly (B×W; B×D, W×D and W)."""

    def errors(self, some: Tensor) -> Tensor:
        """Return how far the products of each row with any row of the gallery can be off, rounding apart (B)."""

    def rounding(self, largest: Tensor) -> Tensor:
        """Return how far a product that is so large can be off by its own rounding (B)."""


def rough_products(gallery: Tensor, longest: float) -> Iterator[Rough]:
    """Yield the ways that this processor is fast at, the cheapest first; each takes a pass over the gallery.

    Args:
        gallery: M×D float32.
        longest: Length of its longest row.
    """
    by_integers = 1 < gallery.shape[1] <= _MOST_COLUMNS and _multiplies_int8()  # oneDNN errs at one column
    if by_integers:
        scale = _scale(gallery)
        each = [torch.stack(_left(rows, scale)).amax(1) for rows in tiles(gallery)]
        left = torch.stack(each).amax(0).tolist()
        yield Int8Product(longest, scale, left, levels=1)
    if fastest_precision("cpu") == "bf16":
        yield Bf16Product(gallery, longest)
    if by_integers:
        yield Int8Product(longest, scale, left, levels=2)


@cache
def _multiplies_int8() -> bool:
    """Return whether this processor multiplies integers of 8 bits fast, and rightly.

    Without VNNI or AMX such products are slow, and they are wrong: sums of two saturate at 16 bits. oneDNN can be told
    to do without them (``ONEDNN_MAX_CPU_ISA``), so a product is tried.
    """
    if not (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()) or not hasattr(torch, "_int_mm"):
        return False
    numbers = torch.randint(-_LARGEST, _LARGEST + 1, (72, 1034), generator=torch.Generator().manual_seed(0))
    numbers[::2] = numbers[::2].sign() * _LARGEST
    small = numbers.to(torch.int8)
    # Rows that lie apart too, as of a matrix of two levels.
    return all(
        torch.equal(torch._int_mm(few[:8], few[8:].T).double(), exact[:8].double() @ exact[8:].double().T)
        for few, exact in ((small, numbers), (small[:, :517], numbers[:, :517]))
    )


def tiles(rows: Tensor, elements: int = _TILE_ELEMENTS) -> tuple[Tensor, ...]:
    """Cut a matrix into runs of rows with about so many elements."""
    return rows.split(max(1, elements // rows.shape[1]))


class Bf16Product:
    """The product in bfloat16.

    Args:
        gallery: M×D float32.
        longest: Length of its longest row.
    """

    cost = 0.4
    bytes_per_column = 2

    def __init__(self, gallery: Tensor, longest: float) -> None:
        self.longest = longest
        self.gallery_error = max(float(_rounding_error(rows).max()) for rows in tiles(gallery, 2**20))

    def write(self, out: Tensor, some: Tensor, gallery: Tensor, norms: Tensor) -> None:
        """Write rough distances; see :class:`Rough`."""
        product = torch.mm(some.bfloat16().mul_(-2), gallery.bfloat16().T)
        torch.add(product, norms, out=out)

    def errors(self, some: Tensor) -> Tensor:
        """Return bounds by Cauchy-Schwarz on what rounding took from either side."""
        lengths = torch.linalg.vector_norm(some, dim=1)
        return _rounding_error(some) * self.longest + 1.01 * lengths * self.gallery_error

    def rounding(self, largest: Tensor) -> Tensor:
        """Return bounds on the rounding of the product, which is relative to it."""
        return _HALF_ULP[torch.bfloat16] * largest


def _rounding_error(rows: Tensor) -> Tensor:
    """Return the length, for each row, of what bfloat16 cannot hold."""
    return torch.linalg.vector_norm(rows - rows.bfloat16().float(), dim=1)


class Int8Product:
    """The product in integers of 8 bits, which adds up without rounding.

    With two levels a number is x = s·(a + b / 254) but for 1/254 of half a step s, with a and b of 8 bits. Of such
    numbers' product the part b·b is left out: it is less than what one level leaves, squared.

    Args:
        longest: Length of the gallery's longest row.
        scale: Step of its integers: the largest number in it, over 127.
        left: Maximum lengths of what one level and two leave of its rows.
        levels: Integers for each number, 1 or 2.
    """

    def __init__(self, longest: float, scale: float, left: Sequence[float], levels: int) -> None:
        self.longest, self.scale, self.left, self.levels = longest, scale, left, levels
        self.cost = {1: 0.25, 2: 0.65}[levels]
        self.bytes_per_column = levels

    def write(self, out: Tensor, some: Tensor, gallery: Tensor, norms: Tensor) -> None:
        """Write rough distances; see :class:`Rough`."""
        width = some.shape[1]
        scale = _scale(some)
        left = _integers(some, scale, self.levels)
        right = torch.cat([_integers(rows, self.scale, self.levels) for rows in tiles(gallery)])
        out.copy_(torch._int_mm(left[:, :width], right[:, :width].T))
        if self.levels == 2:
            # What is fine on one side meets what is coarse on the other.
            crossed = torch._int_mm(left, right.roll(width, 1).T)
            out.add_(crossed.float(), alpha=1 / _FINER)
        torch.add(norms, out, alpha=-2 * scale * self.scale, out=out)

    def errors(self, some: Tensor) -> Tensor:
        """Return bounds by Cauchy-Schwarz on what the integers leave of either side."""
        coarse, fine = _left(some, _scale(some))
        lengths = torch.linalg.vector_norm(some, dim=1)
        gallery_coarse, gallery_fine = self.left
        if self.levels == 1:
            return coarse * (self.longest + gallery_coarse) + lengths * gallery_coarse
        # The finer integers, whose product is left out, are as long at most as what they were to fill and missed.
        unmultiplied = (coarse + fine) * (gallery_coarse + gallery_fine)
        return fine * (self.longest + gallery_fine) + lengths * gallery_fine + unmultiplied

    def rounding(self, largest: Tensor) -> Tensor:
        """Return zeros: integers add up without rounding."""
        return torch.zeros_like(largest)


def _scale(rows: Tensor) -> float:
    return max(float(some.abs().max()) for some in tiles(rows)) / _LARGEST or 1.0


def _integers(rows: Tensor, scale: float, levels: int) -> Tensor:
    """Return rows as integers of 8 bits, level beside level."""
    width = rows.shape[1]
    out = torch.empty(len(rows), levels * width, dtype=torch.int8)
    steps = torch.mul(rows, 1 / scale).round_()
    out[:, :width].copy_(steps)
    if levels == 2:
        rest = torch.sub(rows, steps, alpha=scale)
        out[:, width:].copy_(rest.mul_(_FINER / scale).round_())
    return out


def _left(rows: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the lengths of what one level leaves of rows, and of what two do."""
    # Rounding in float32 moves what is left by as much.
    spare = 4 * _HALF_ULP[torch.float32] * torch.linalg.vector_norm(rows, dim=1)
    rest = torch.sub(rows, torch.mul(rows, 1 / scale).round_(), alpha=scale)
    coarse = torch.linalg.vector_norm(rest, dim=1)
    rest.sub_(torch.mul(rest, _FINER / scale).round_(), alpha=scale / _FINER)
    return 1.001 * coarse + spare, 1.001 * torch.linalg.vector_norm(rest, dim=1) + spare
