"""A loss over the batches of all processes: its gradients are those of one process with all images in a batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reprism
from reprism.losses import AcrossProcesses, TotalLoss
from reprism.models.network import PartNet
from reprism.training.ingredients import build_ingredients
from reprism.training.recipes import Recipe

# One of two processes: its half of the batch, gradients averaged as distributed data parallelism does.
SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests_given import build, losses, whole_batch
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
images, labels = whole_batch()
mine = slice(6 * rank, 6 * rank + 6)
found = {}
for name, loss in losses().items():
    both = torch.nn.ModuleDict({"model": build(), "loss": loss})
    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.both = both
        def forward(self, images, labels):
            value = self.both["loss"](self.both["model"](images), labels)
            return getattr(value, "total", value)
    step = DistributedDataParallel(Step(), find_unused_parameters=True)
    value = step(images[mine], labels[mine])
    value.backward()
    found[name] = (value.detach(), {key: each.grad for key, each in both.named_parameters()})
torch.save(found, f"{folder}/rank{rank}.pt")
"""

GIVEN = """
import torch
from torch import nn
import reprism
from reprism.losses import AcrossProcesses, EachPart, TotalLoss
class Centers(nn.Module):
    def __init__(self):
        super().__init__()
        self.centers = nn.Parameter(torch.arange(32.0).reshape(4, 8) / 32)
    def forward(self, features, labels):
        return (features - self.centers[labels]).square().mean() + torch.cdist(features, features).amax()
def build():
    torch.manual_seed(0)
    # Batch statistics are of each process alone, so they are not taken here.
    return reprism.build_model("p1+p2(s2c2)", "test_resnet", num_classes=4, part_dim=8, size=(32, 16)).eval()
def losses():
    return {"total": AcrossProcesses(TotalLoss()), "own": AcrossProcesses(EachPart(Centers(), "p1+p2(s2c2)")),
            "apart": TotalLoss()}
def whole_batch():
    torch.manual_seed(1)
    # The first process has the identities 0 and 1, the second 2 and 3.
    return torch.randn(12, 3, 32, 16), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
"""


def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "tests_given.py").write_text(GIVEN)
    (tmp_path / "step.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen([sys.executable, tmp_path / "step.py", str(rank), tmp_path], env=environment)
        for rank in (0, 1)
    ]
    given: dict[str, Any] = {}
    exec(GIVEN, given)  # the same as the processes import
    assert [process.wait(timeout=600) for process in started] == [0, 0]
    images, labels = given["whole_batch"]()
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for name, loss in given["losses"]().items():
        both = nn.ModuleDict({"model": given["build"](), "loss": loss})
        value = both["loss"](both["model"](images), labels)
        value = getattr(value, "total", value)
        value.backward()
        for found, gradients in (rank[name] for rank in ranks):
            alike = [torch.allclose(found, value, rtol=1e-5)]
            for key, parameter in both.named_parameters():
                expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                mine = torch.zeros_like(parameter) if gradients[key] is None else gradients[key]
                alike.append(torch.allclose(mine, expected, rtol=1e-4, atol=1e-6))
            # Mined in each process alone, triplets are others: the test would see it.
            assert all(alike) == (name != "apart"), (name, alike)


def test_in_one_process_it_is_the_loss_itself(people: Path) -> None:
    dataset = reprism.open_dataset("market1501", people)
    changes = {"model": {"partition": "p1", "backbone": "test_resnet", "part_dim": 8, "pretrained": False}}
    recipe = Recipe.model_validate(changes | {"loss": {"gather": True}, "data": {"size": (32, 16)}})
    made = build_ingredients(recipe, dataset)
    assert isinstance(made.loss, AcrossProcesses)
    assert isinstance(made.loss.loss, TotalLoss)
    with torch.no_grad():
        output, labels = made.model(torch.randn(6, 3, 32, 16)), torch.tensor([0, 0, 1, 1, 2, 2])
    assert [float(each) for each in made.loss(output, labels)] == [float(each) for each in TotalLoss()(output, labels)]


class _Kept(nn.Module):
    """Takes the place of a collective: two processes with the same batch."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows, rows


def test_every_kind_of_row_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprism.losses.dist.is_initialized", lambda: True)
    monkeypatch.setattr("reprism.losses.dist.get_world_size", lambda: 2)
    monkeypatch.setattr("reprism.losses._gather", _Kept())
    net: PartNet = reprism.build_model(
        "p1+p2(s2c2)", "test_resnet", num_classes=3, part_dim=8, size=(32, 16), head="bnneck"
    )
    output = net(torch.randn(4, 3, 32, 16))
    seen = []

    class Look(nn.Module):
        def forward(self, joined: Any, labels: Tensor) -> Tensor:
            for kind in ("features", "logits", "compared"):
                ours, theirs = getattr(output, kind), getattr(joined, kind)
                assert list(ours) == list(theirs)
                for name, rows in ours.items():
                    torch.testing.assert_close(theirs[name], torch.cat([rows, rows]))
            seen.append(labels)
            return labels.sum()

    AcrossProcesses(Look())(output, torch.arange(4))
    assert seen[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
