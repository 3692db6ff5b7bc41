"""The training losses (paper section 3.2), and what joins them with losses from elsewhere.

A loss is any module called with a :class:`PartOutput` and B integer labels. It returns a scalar, or named scalars with
``total`` among them, which is minimised.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather as _gather

from reprism.models.network import PartOutput
from reprism.notation import Kind, Partition


def _full_precision(values: Tensor) -> Tensor:
    """Halves become float32 (differences of near neighbours vanish in them); float32 and float64 stay."""
    return values if values.dtype == torch.float64 else values.float()


class BatchHardTriplet(nn.Module):
    """Batch-hard triplet loss (paper equation 2; https://arxiv.org/abs/1703.07737).

    Every image is an anchor once. Its positive is the farthest image of the same identity (the anchor itself counts,
    at distance 0), its negative the nearest image of another one; distances are Euclidean. The loss is the mean over
    anchors of ``max(0, d(positive) - d(negative) + margin)``: the paper prints the sum, the mean differs by a factor.

    Args:
        margin: α of equation 2, in units of the features' distance.
    """

    def __init__(self, margin: float = 1.2) -> None:
        super().__init__()
        if margin < 0:
            raise ValueError(f"the margin must not be negative, it is {margin}")
        self.margin = margin

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss, a scalar in float32 (float64 for float64 features), of features B×D and integer labels B.

        Raises:
            ValueError: Labels of another length, or a batch in which no image has a negative.
        """
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(
                f"expected features B×D and labels B, got shapes {tuple(features.shape)} and {tuple(labels.shape)}"
            )
        same = labels[:, None] == labels[None, :]
        if bool(same.all()):
            raise ValueError(
                f"no triplet in this batch: its {len(labels)} image(s) show one identity, and the loss needs at least "
                "two. Raise the identities per batch (--data.ids-per-batch), or use a sampler that mixes identities."
            )
        features = _full_precision(features)
        # The matrix-product form of the distance loses the small ones to rounding, where the gradient is largest.
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        hardest_positive = distances.masked_fill(~same, 0.0).amax(dim=1)
        hardest_negative = distances.masked_fill(same, float("inf")).amin(dim=1)
        return F.relu(hardest_positive - hardest_negative + self.margin).mean()


class PartCrossEntropy(nn.Module):
    """Mean cross-entropy of every part's classifier (paper equation 1).

    Args:
        label_smoothing: Share of the target that is spread over all classes, 0 … 1; 0 in the paper.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, output: PartOutput, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, of a network's output for integer labels B in 0 … classes-1.

        Raises:
            ValueError: The network has no classifiers, or a label lies outside them.
        """
        if not output.logits:
            raise ValueError("the network has no classifiers: build it with num_classes to train it")
        classes = next(iter(output.logits.values())).shape[1]
        if labels.device.type == "cpu" and (int(labels.min()) < 0 or int(labels.max()) >= classes):
            # Elsewhere the check would wait for the device at every step; there the library's own assertion speaks.
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, the classifiers have {classes}"
            )
        cross_entropies = [
            F.cross_entropy(_full_precision(logits), labels, label_smoothing=self.label_smoothing)
            for logits in output.logits.values()
        ]
        return torch.stack(cross_entropies).mean()


class EachPart(nn.Module):
    """Apply a loss of features and labels to each of some parts, and average: such as pytorch-metric-learning's.

    Every part has a copy of the loss, with parameters of its own where it has any (proxies, centres).

    Args:
        loss: A module called with features B×part_dim float32 and labels B, and with the answer of a miner if given.
        partition: Partition of the network.
        kinds: Parts to apply it to: ``global``, ``stripe`` and ``channel`` ones.
        miner: Called with features and labels; chooses pairs or triplets for the loss.

    Raises:
        ValueError: The partition has no such part.
    """

    def __init__(
        self,
        loss: nn.Module,
        partition: Partition | str,
        kinds: Sequence[Kind] = ("global",),
        miner: nn.Module | None = None,
    ) -> None:
        super().__init__()
        partition = Partition.parse(partition) if isinstance(partition, str) else partition
        names = [part.name for part in partition.parts if part.kind in kinds]
        if not names:
            raise ValueError(f"{partition} has no {' or '.join(kinds)} part")
        self.losses = nn.ModuleDict({name: copy.deepcopy(loss) for name in names})
        self.miners = nn.ModuleDict({name: copy.deepcopy(miner) for name in names} if miner is not None else {})

    def forward(self, output: PartOutput, labels: Tensor) -> Tensor:
        """Return the mean over the parts, a scalar, for integer labels B."""
        values = []
        for name, loss in self.losses.items():
            features = _full_precision(output.compared[name])
            chosen = (self.miners[name](features, labels),) if self.miners else ()
            values.append(loss(features, labels, *chosen))
        return torch.stack(values).mean()


class WeightedSum(nn.Module):
    """Add up losses by weight; each is logged by its name.

    Args:
        **terms: Weight and loss by name, such as ``cross_entropy=(2.0, PartCrossEntropy())``.

    Raises:
        ValueError: There is no term, or one is called ``total``.
    """

    def __init__(self, **terms: tuple[float, nn.Module]) -> None:
        super().__init__()
        if not terms or "total" in terms:
            raise ValueError("expected one or more terms, none of them called total")
        self.weights = {name: weight for name, (weight, _) in terms.items()}
        self.terms = nn.ModuleDict({name: loss for name, (_, loss) in terms.items()})

    def forward(self, output: PartOutput, labels: Tensor) -> dict[str, Tensor]:
        """Return every term by its name, unweighted, and ``total``, the sum to train by."""
        values = {name: loss(output, labels) for name, loss in self.terms.items()}
        total = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return {"total": total, **{name: value.detach() for name, value in values.items()}}


class AcrossProcesses(nn.Module):
    """Compute a loss on the batches of all processes together: triplets are mined over the whole step.

    Each process computes the same loss, and gradients flow back to the process whose images they are of. Averaged, as
    distributed data parallelism averages them, they are the gradients of one process with all the images in a batch.
    In a single process it is the loss itself.

    Args:
        loss: A loss as this module describes one. All processes have batches of one size.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: PartOutput, labels: Tensor) -> Any:
        """Return the loss of the joined batches, in the order of the processes."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return self.loss(output, labels)
        joined = {name: _joined(getattr(output, name)) for name in ("features", "logits", "compared")}
        return self.loss(PartOutput(output.parts, **joined), torch.cat(_gather(labels)))


def _joined(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gather all parts' rows at once: B×D each here, (W·B)×D each of the W processes."""
    if not rows:
        return {}
    whole = torch.cat(_gather(torch.cat(list(rows.values()), dim=1)))
    return dict(zip(rows, whole.split([some.shape[1] for some in rows.values()], dim=1), strict=True))


class LossTerms(NamedTuple):
    """The total loss and the two means it is made of, scalars."""

    total: Tensor
    cross_entropy: Tensor
    triplet: Tensor


class TotalLoss(nn.Module):
    """λ · mean cross-entropy over all parts + mean triplet loss over the global parts (paper equation 3).

    Both read the same features: after batch normalisation, not L2-normalised. A partition without a global part
    (``p1[s6]``) has no triplet term.

    Args:
        ce_weight: λ of equation 3; 0 trains by triplets alone.
        margin: Margin of the triplet loss.
        triplet_weight: Weight of the triplet loss, 1 in the paper; 0 trains by cross-entropy alone (Table 4, "w/o
            triplet").
        label_smoothing: Smoothing of the cross-entropy's targets, 0 … 1; 0 in the paper.
    """

    def __init__(
        self,
        ce_weight: float = 2.0,
        margin: float = 1.2,
        triplet_weight: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if min(ce_weight, triplet_weight) < 0 or ce_weight + triplet_weight == 0:
            raise ValueError(f"weights must not be negative, nor both 0: got {ce_weight} and {triplet_weight}")
        self.ce_weight = ce_weight
        self.triplet_weight = triplet_weight
        self.cross_entropy = PartCrossEntropy(label_smoothing)
        self.triplet = BatchHardTriplet(margin)

    def forward(self, output: PartOutput, labels: Tensor) -> LossTerms:
        """Loss terms of a network's output for integer labels B in 0…classes-1.

        Raises:
            ValueError: The network has no classifiers, a label lies outside them, or the batch has one identity.
        """
        cross_entropy = self.cross_entropy(output, labels)
        # At weight 0 the term is not computed at all: such a run may draw batches without triplets.
        wanted = [part for part in output.parts if part.kind == "global" and self.triplet_weight]
        triplets = [self.triplet(output.compared[part.name], labels) for part in wanted]
        triplet = torch.stack(triplets).mean() if triplets else torch.zeros_like(cross_entropy)
        return LossTerms(
            self.ce_weight * cross_entropy + self.triplet_weight * triplet,
            cross_entropy.detach(),
            triplet.detach(),
        )
