"""Sample training batches: P identities, K images of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One entry of a batch: an image's index, and the seed of its augmentation.

    Attributes:
        index: Position of the image in the training set.
        seed: 0 … 2³²-1, all that torch's CPU generator makes use of.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, of no use here
    seed: int


class IdentityBatchSampler(Sampler[list[Draw]]):
    """Batches of P identities × K images for losses that compare images of the same person.

    An epoch shows each identity once, with K of its images. An image repeats within an epoch only where its
    identity has fewer than K, and then every image of that identity is shown. The identities left over at the
    end, too few to fill a batch, are dropped; another epoch drops others.

    An epoch is a function of ``(seed, epoch)`` and of nothing else: it neither reads nor moves any global
    random state. Distributed, all processes work out the same epoch and each takes its own slice of every
    step. So the identities of a step are disjoint between processes, and all have the same number of batches.
    W processes of P identities together see the batches of one process of W·P, augmentation included.

    Args:
        labels: The identity of each training image, in the order of the training set.
        ids_per_batch: P, identities in each process's batch.
        images_per_id: K, images of each identity in a batch.
        seed: Makes the order of the images and their augmentation; not negative.
        rank: This process, 0 … world_size-1.
        world_size: Number of processes that train together.

    Attributes:
        epoch: The epoch that the next iteration gives; set it with ``set_epoch``.
        num_identities: Different identities among the labels.

    Raises:
        ValueError: A number is out of range, or there are fewer identities than one step needs.
    """

    def __init__(
        self,
        labels: Sequence[int],
        ids_per_batch: int = 8,
        images_per_id: int = 4,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value, least in (
            ("ids_per_batch", ids_per_batch, 1),
            ("images_per_id", images_per_id, 1),
            ("seed", seed, 0),
            ("world_size", world_size, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be {least} or more.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with world_size {world_size} it must be 0 … {world_size - 1}.")
        identities, self._labels, self._counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        self._firsts = np.cumsum(self._counts) - self._counts
        self.num_identities = len(identities)
        if self.num_identities < ids_per_batch * world_size:
            most = self.num_identities // world_size
            raise ValueError(
                f"{self.num_identities} identities cannot fill a step of ids_per_batch {ids_per_batch} × "
                f"{world_size} process(es) = {ids_per_batch * world_size}. "
                + (f"Lower ids_per_batch to {most} or less." if most else "Use more identities or fewer processes.")
            )
        self.ids_per_batch = ids_per_batch
        self.images_per_id = images_per_id
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._start_batch = 0

    @property
    def start_batch(self) -> int:
        """The batch that the next iteration begins with, 0 … ``len(self)``.

        Set it to go on in the middle of an epoch: the batches that follow are the same as in an uninterrupted
        epoch. It holds for one iteration and is 0 again once that has begun. ``len()`` stays the whole
        epoch's.
        """
        return self._start_batch

    @start_batch.setter
    def start_batch(self, batch: int) -> None:
        if not 0 <= batch <= len(self):
            raise ValueError(f"start_batch is {batch}; an epoch has batches 0 … {len(self)} to start from.")
        self._start_batch = batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, 0 or more, that the next iteration gives."""
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; it must be 0 or more.")
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in a whole epoch, the same on every process."""
        return self.num_identities // (self.ids_per_batch * self.world_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        # A generator on purpose: its body runs at the first next(). A DataLoader with workers calls iter()
        # twice and uses the second one, so a start consumed by iter() itself would be lost.
        start, self._start_batch = self._start_batch, 0
        indices, seeds = self._plan()
        for batch in range(start, len(self)):
            yield [Draw(*draw) for draw in zip(indices[batch].tolist(), seeds[batch].tolist(), strict=True)]

    def _plan(self) -> tuple[np.ndarray, np.ndarray]:
        """Return this process's epoch: image indices and seeds, each batches × (P·K)."""
        rng = np.random.default_rng((self.seed, self.epoch))
        # Images grouped by identity, in random order within each: a group's first K are K different images.
        grouped = np.lexsort((rng.random(len(self._labels)), self._labels))
        # Where a group is smaller than K, go round it again.
        picks = np.arange(self.images_per_id) % self._counts[:, None]
        images = grouped[self._firsts[:, None] + picks]
        images = rng.permutation(images)
        seeds = rng.integers(2**32, size=images.shape)

        def own_slice(values: np.ndarray) -> np.ndarray:
            whole_steps = values[: len(self) * self.world_size * self.ids_per_batch]
            return whole_steps.reshape(len(self), self.world_size, -1)[:, self.rank]

        return own_slice(images), own_slice(seeds)
