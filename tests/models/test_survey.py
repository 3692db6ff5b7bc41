"""What a network costs, against closed forms."""

import pytest
import timm

from reprism.models.survey import BACKBONES, measure


def test_the_papers_network_costs_what_the_paper_says() -> None:
    """SCR on ResNet-50 at 384×192: 20.9 GMAC, that is 41.9 GFLOP; 3,328 columns; no classifiers."""
    cost = measure("resnet50", "p1+p2(s2c2)+p3(s3c3)", batch=1, batches=1)
    assert cost.gflop == pytest.approx(41.9, abs=0.1)
    assert cost.descriptor_dim == 3328
    classifiers = 13 * (256 + 1) * 751
    assert cost.parameters == 72_367_971 - classifiers
    assert cost.images_per_second > 0


def test_the_survey_is_of_ten_families_of_timm() -> None:
    assert len(set(BACKBONES)) == 10
    assert all(timm.is_model(name) for name in BACKBONES)
