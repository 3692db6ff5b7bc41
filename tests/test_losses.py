"""Losses against statements written from the paper's equations, in plain Python loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reprism
from reprism.losses import BatchHardTriplet, EachPart, PartCrossEntropy, TotalLoss, WeightedSum
from reprism.models.network import PartOutput
from reprism.notation import Partition


def brute_force_triplet(features: list[list[float]], labels: list[int], margin: float) -> float:
    terms = []
    for a, anchor in enumerate(features):
        positives = [math.dist(anchor, features[p]) for p in range(len(labels)) if labels[p] == labels[a]]
        negatives = [math.dist(anchor, features[n]) for n in range(len(labels)) if labels[n] != labels[a]]
        terms.append(max(0.0, max(positives) - min(negatives) + margin))
    return sum(terms) / len(terms)


def brute_force_cross_entropy(logits: list[list[float]], labels: list[int]) -> float:
    terms = []
    for row, label in zip(logits, labels, strict=True):
        peak = max(row)
        terms.append(math.log(sum(math.exp(x - peak) for x in row)) + peak - row[label])
    return sum(terms) / len(terms)


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 6), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_triplet_is_equation_2(ids: int, per_id: int, width: int, margin: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(ids * per_id, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(ids).repeat_interleave(per_id)[torch.randperm(ids * per_id, generator=generator)]
    expected = brute_force_triplet(features.tolist(), labels.tolist(), margin)
    assert BatchHardTriplet(margin)(features, labels).item() == pytest.approx(expected, abs=1e-12)


def test_triplet_of_a_line() -> None:
    # Two identities on a line at 0, 1 | 3, 7. Anchors: 1-3, 1-2, 4-2, 4-6, each + margin 1.2, cut at 0.
    features = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    loss = BatchHardTriplet(1.2)(features, torch.tensor([5, 5, 9, 9]))
    assert loss.item() == pytest.approx((0 + 0.2 + 3.2 + 0) / 4)


def test_triplet_gradient_exists_where_images_coincide() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    BatchHardTriplet()(features, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(features.grad).all()


def test_triplet_gradient_is_right() -> None:
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda x: BatchHardTriplet()(x, labels), features)


def test_triplet_keeps_small_distances_under_autocast() -> None:
    features = 100 + torch.randn(8, 256) * 1e-2
    labels = torch.arange(4).repeat_interleave(2)
    expected = brute_force_triplet(features.tolist(), labels.tolist(), 1.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = BatchHardTriplet()(features, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_half_features_are_compared_in_full_precision() -> None:
    features = torch.randn(8, 16).bfloat16()
    labels = torch.arange(4).repeat_interleave(2)
    expected = brute_force_triplet(features.tolist(), labels.tolist(), 1.2)
    assert BatchHardTriplet()(features, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [1, 4])
def test_one_identity_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="one identity"):
        BatchHardTriplet()(torch.randn(count, 8), torch.zeros(count, dtype=torch.long))


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 8\) and \(3,\)"):
        BatchHardTriplet()(torch.randn(4, 8), torch.tensor([0, 1, 2]))


def output_of(text: str, batch: int, classes: int, dtype: torch.dtype) -> PartOutput:
    parts = Partition.parse(text).parts
    generator = torch.Generator().manual_seed(3)
    draw = lambda width: torch.randn(batch, width, generator=generator, dtype=dtype)  # noqa: E731
    return PartOutput(parts, {p.name: draw(8) for p in parts}, {p.name: draw(classes) for p in parts})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("text", ["p1+p2(s2c2)+p3(s3c3)", "p1", "p1[s6]"])
@pytest.mark.parametrize("ce_weight", [2.0, 0.5])
def test_total_loss_is_equation_3(text: str, ce_weight: float, dtype: torch.dtype, tolerance: float) -> None:
    labels = [0, 0, 3, 3, 1, 1]
    output = output_of(text, 6, 4, dtype)
    cross_entropy = [brute_force_cross_entropy(output.logits[p.name].tolist(), labels) for p in output.parts]
    triplet = [
        brute_force_triplet(output.features[p.name].tolist(), labels, 1.2) for p in output.parts if p.kind == "global"
    ]
    mean_triplet = sum(triplet) / len(triplet) if triplet else 0.0
    terms = TotalLoss(ce_weight)(output, torch.tensor(labels))
    expected = ce_weight * sum(cross_entropy) / len(cross_entropy) + mean_triplet
    assert terms.total.item() == pytest.approx(expected, abs=tolerance * 10)
    assert terms.cross_entropy.item() == pytest.approx(sum(cross_entropy) / len(cross_entropy), abs=tolerance * 10)
    assert terms.triplet.item() == pytest.approx(mean_triplet, abs=tolerance * 10)


def test_scr_has_13_cross_entropies_and_3_triplets() -> None:
    output = output_of("p1+p2(s2c2)+p3(s3c3)", 4, 5, torch.float64)
    for tensor in (*output.features.values(), *output.logits.values()):
        tensor.requires_grad_()
    TotalLoss()(output, torch.tensor([0, 0, 1, 1])).total.backward()
    assert sum(tensor.grad is not None for tensor in output.logits.values()) == 13
    assert sum(tensor.grad is not None for tensor in output.features.values()) == 3


def test_total_loss_is_exact_under_autocast() -> None:
    output, labels = output_of("p1+p2(s2c2)", 4, 5, torch.float32), torch.tensor([0, 0, 1, 1])
    expected = TotalLoss()(output, labels).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert TotalLoss()(output, labels).total == expected


def test_without_triplet_the_batch_may_have_any_identities() -> None:
    output = output_of("p1", 4, 5, torch.float32)
    labels = torch.tensor([1, 1, 1, 1])
    expected = 2 * brute_force_cross_entropy(output.logits["p1"].tolist(), labels.tolist())
    assert TotalLoss(triplet_weight=0)(output, labels).total.item() == pytest.approx(expected, abs=1e-5)


def test_bad_labels_and_missing_classifiers_are_refused() -> None:
    output = output_of("p1", 4, 5, torch.float32)
    with pytest.raises(ValueError, match="from 0 to 5"):
        TotalLoss()(output, torch.tensor([0, 0, 5, 5]))
    with pytest.raises(ValueError, match="no classifiers"):
        TotalLoss()(PartOutput(output.parts, output.features, {}), torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="weights"):
        TotalLoss(ce_weight=0, triplet_weight=0)


def test_each_part_is_the_mean_over_its_parts() -> None:
    torch.manual_seed(0)
    model = reprism.build_model("p1+p2(s2)", "mobilenetv3_small_050", num_classes=4, part_dim=6, size=(64, 32))
    output = model.train()(torch.randn(8, 3, 64, 32))
    labels = torch.arange(4).repeat_interleave(2)
    for kinds, names in ((("global",), ("p1", "p2")), (("stripe",), ("p2s1", "p2s2"))):
        loss = EachPart(BatchHardTriplet(0.7), "p1+p2(s2)", kinds)
        expected = torch.stack([BatchHardTriplet(0.7)(output.features[name], labels) for name in names]).mean()
        torch.testing.assert_close(loss(output, labels), expected)
    both = WeightedSum(entropy=(2.0, PartCrossEntropy()), triplet=(1.0, EachPart(BatchHardTriplet(1.2), "p1+p2(s2)")))
    torch.testing.assert_close(both(output, labels)["total"], TotalLoss()(output, labels).total)
    own = EachPart(torch.nn.Bilinear(2, 2, 2), "p1+p2(s2)", ("global", "stripe"))
    assert len(list(own.parameters())) == 4 * 2, "every part has parameters of its own"
    with pytest.raises(ValueError, match="no channel part"):
        EachPart(BatchHardTriplet(), "p1+p2(s2)", ("channel",))
    with pytest.raises(ValueError, match="none of them called total"):
        WeightedSum(total=(1.0, PartCrossEntropy()))


def test_the_triplet_loss_is_that_of_pytorch_metric_learning() -> None:
    pml = pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed")
    from pytorch_metric_learning import distances, losses, miners, reducers

    assert pml
    torch.manual_seed(0)
    plain = distances.LpDistance(normalize_embeddings=False)
    theirs = losses.TripletMarginLoss(margin=1.2, distance=plain, reducer=reducers.MeanReducer())
    miner = miners.BatchHardMiner(distance=plain)
    for spread in (0.3, 1.0, 4.0):
        features, labels = spread * torch.randn(24, 10), torch.arange(6).repeat_interleave(4)
        expected = theirs(features, labels, miner(features, labels))
        torch.testing.assert_close(BatchHardTriplet(1.2)(features, labels), expected, rtol=1e-4, atol=1e-5)
