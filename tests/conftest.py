"""What several test files need: a small data set of rendered people, and where development data may lie."""

from pathlib import Path

import pytest

from reprism.data.rendered_layouts import render_market1501


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Market-1501 folder of rendered people: 12 to train on, 6 to look for, 64×32 pixels."""
    return render_market1501(
        tmp_path_factory.mktemp("people") / "market",
        train_identities=12,
        test_identities=6,
        cameras=3,
        images_per_camera=3,
        junk=2,
        distractors=3,
        size=(64, 32),
    )
