"""The part network against the paper's figures and against pooling written out by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reprism import Partition, build_model
from reprism.models.parts import group_sizes, pool_parts

SCR = "p1+p2(s2c2)+p3(s3c3)"


def test_scr_has_the_papers_size() -> None:
    model = build_model(SCR, "resnet50", num_classes=751).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 72_367_971
    assert model.descriptor_dim == 3328
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = model(torch.zeros(1, 3, 384, 192))
    assert output.descriptor.shape == (1, 3328)
    assert round(counter.get_total_flops() / 1e9, 1) == 41.9
    assert round(counter.get_total_flops() / 2e9, 1) == 20.9
    assert {tuple(m.shape[-2:]) for m in model.maps(torch.zeros(1, 3, 384, 192)).values()} == {(24, 12)}


def test_channel_groups_are_even_and_larger_first() -> None:
    assert group_sizes(2048, 3) == [683, 683, 682]
    assert group_sizes(2048, 2) == [1024, 1024]
    assert group_sizes(7, 4) == [2, 2, 2, 1]


@pytest.mark.parametrize(("height", "count"), [(6, 2), (6, 3), (24, 6), (7, 3), (5, 2)])
def test_pooling_by_hand(height: int, count: int) -> None:
    feature_map = torch.randn(3, 10, height, 4)
    parts = Partition.parse(f"p1(s{count}c{count})").parts
    pooled = pool_parts(feature_map, parts)
    for image in range(3):
        whole = [feature_map[image, channel].max().item() for channel in range(10)]
        assert pooled["p1"][image].tolist() == whole
        start = 0
        for index in range(count):
            top, bottom = index * height // count, -(-(index + 1) * height // count)
            stripe = [feature_map[image, channel, top:bottom].max().item() for channel in range(10)]
            assert pooled[f"p1s{index + 1}"][image].tolist() == stripe
            size = 10 // count + (index < 10 % count)
            assert pooled[f"p1c{index + 1}"][image].tolist() == whole[start : start + size]
            start += size


def test_heads_are_as_published() -> None:
    model = build_model("p1(s2c3)", "resnet18", num_classes=100, part_dim=64)
    assert [model.heads[p.name].reduce.in_features for p in model.partition.parts] == [
        512,
        512,
        512,
        171,
        171,
        170,
    ]
    for head in model.heads.values():
        assert head.reduce.bias is None
        # He et al.: standard deviation sqrt(2 / fan-in) for the reduction; N(1, 0.02) for the norm's weight.
        assert head.reduce.weight.std().item() == pytest.approx((2 / head.reduce.in_features) ** 0.5, rel=0.05)
        assert head.norm.weight.mean().item() == pytest.approx(1, abs=0.02)
        assert 0.01 < head.norm.weight.std().item() < 0.03
        assert not head.norm.bias.any()
    for classifier in model.classifiers.values():
        assert classifier.weight.std().item() == pytest.approx((2 / 100) ** 0.5, rel=0.05)
        assert not classifier.bias.any()


def test_features_have_no_relu_and_their_own_head() -> None:
    model = build_model("p1(s2c2)", "resnet18", num_classes=3, part_dim=8, size=(64, 32)).eval()
    output = model(torch.randn(4, 3, 64, 32))
    for name, feature in output.features.items():
        assert (feature < 0).any()
        assert torch.equal(output.logits[name], model.classifiers[name](feature))
    assert torch.equal(output.descriptor, torch.cat(list(output.features.values()), dim=1))
    for part in output.parts:
        assert torch.equal(output.descriptor[:, model.partition.columns(part.name, 8)], output.features[part.name])


def test_heads_stay_in_full_precision_under_autocast() -> None:
    model = build_model("p1", "resnet10t", num_classes=3, part_dim=8, size=(64, 32)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(2, 3, 64, 32))
        assert model.maps(torch.randn(2, 3, 64, 32))["p1"].dtype == torch.bfloat16
    assert output.features["p1"].dtype == output.logits["p1"].dtype == torch.float32


def test_without_classes_there_are_no_classifiers() -> None:
    assert build_model("p1", "resnet10t")(torch.randn(2, 3, 64, 32)).logits == {}


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cuts p1 into 9 stripe parts, .* has 4 rows"):
        build_model("p1[s9]", "resnet10t", size=(64, 32))
    with pytest.raises(ValueError, match=r"has 512 channels"):
        build_model("p1(c600)", "resnet10t", size=(64, 32))
    with pytest.raises(ValueError, match="part_dim"):
        build_model("p1", "resnet10t", part_dim=0)
    with pytest.raises(ValueError, match="batch of one image"):
        build_model("p1", "resnet10t").train()(torch.randn(1, 3, 64, 32))
