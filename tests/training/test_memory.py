"""A training step does not ask the system again for the memory that the last one gave back."""

import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reprism.training import fit
from reprism.training.run import train

STEPS = """
import resource, sys
import numpy as np
from reprism.training.memory import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def step():
    maps = [np.ones(12_000_000, np.float32) for _ in range(3)]  # 48 MB each
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep freed memory")
def test_freed_memory_stays_with_the_process() -> None:
    def page_faults(*arguments: str) -> float:
        run = subprocess.run([sys.executable, "-c", STEPS, *arguments], capture_output=True, text=True, check=True)
        return float(run.stdout)

    pages = 3 * 48e6 / resource.getpagesize()
    assert page_faults("keep") < 0.02 * pages
    assert page_faults() > 0.02 * pages  # few of them where the system has huge pages


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_training_on_a_cpu_keeps_it(
    accelerator: str, people: Path, recipe_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no_trainer(**options: Any) -> None:
        raise ValueError(options["accelerator"])

    monkeypatch.setattr(fit, "keep_freed_memory", lambda: asked.append("kept"))
    monkeypatch.setattr(fit.pl, "Trainer", no_trainer)
    monkeypatch.setattr(fit.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=accelerator):
        train(recipe_of(people, trainer={"accelerator": accelerator, "precision": "fp32"}), tmp_path / "run")
    assert asked == (["kept"] if accelerator == "cpu" else [])
