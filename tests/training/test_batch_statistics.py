"""Batch statistics over several processes: outputs, gradients and running statistics are those of the whole batch."""

import copy
import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from reprism.cli import main
from reprism.training.batch_statistics import join_batch_statistics
from reprism.training.recipes import Recipe, RecipeError, write_recipe

GIVEN = """
import torch
from timm.layers import BatchNormAct2d
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), BatchNormAct2d(5, act_layer=nn.SiLU), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4, momentum=None),
        nn.Flatten(), nn.Linear(4 * 6 * 4, 7), nn.BatchNorm1d(7), nn.BatchNorm1d(7, affine=False),
    )
    for norm in (net[1], net[3], net[6]):
        nn.init.normal_(norm.weight, 1, 0.5)
        nn.init.normal_(norm.bias)
    return net.double()

def whole_batch():
    torch.manual_seed(1)
    return torch.randn(12, 3, 8, 6).double() * torch.arange(1, 13).view(12, 1, 1, 1), torch.randn(12, 7).double()
"""

# The processes have unequal shares of the batch. Gradients of a sum add up over its terms, so over processes.
SCRIPT = """
import sys
import torch
import torch.distributed as dist
from statistics_given import build, whole_batch
from reprism.training.batch_statistics import join_batch_statistics
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
images, wanted = (both[slice(0, 7) if rank == 0 else slice(7, 12)] for both in whole_batch())
net, found = join_batch_statistics(build(), "cpu"), []
images.requires_grad_()
for _ in range(2):
    output = net(images)
    (output * wanted).sum().backward()
    found.append(output.detach())
found.append(net.eval()(images.detach()))
gradients = {name: each.grad for name, each in net.named_parameters()}
torch.save((found, images.grad, gradients, net.state_dict()), f"{folder}/rank{rank}.pt")
"""


def test_two_processes_are_one_with_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "statistics_given.py").write_text(GIVEN)
    (tmp_path / "step.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen([sys.executable, tmp_path / "step.py", str(rank), tmp_path], env=environment)
        for rank in (0, 1)
    ]
    given: dict[str, Any] = {}
    exec(GIVEN, given)  # the same as the processes import
    net, (images, wanted) = given["build"](), given["whole_batch"]()
    images.requires_grad_()
    expected = []
    for _ in range(2):
        output = net(images)
        (output * wanted).sum().backward()
        expected.append(output.detach())
    expected.append(net.eval()(images.detach()))
    assert [process.wait(timeout=600) for process in started] == [0, 0]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for step, whole in enumerate(expected):
        torch.testing.assert_close(torch.cat([found[step] for found, *_ in ranks]), whole)
    torch.testing.assert_close(torch.cat([gradient for _, gradient, *_ in ranks]), images.grad)
    first, second = (gradients for *_, gradients, _ in ranks)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(first[name] + second[name], parameter.grad, rtol=1e-6, atol=1e-8)
    for *_, state in ranks:
        assert list(state) == list(net.state_dict())
        for name, value in net.state_dict().items():
            torch.testing.assert_close(state[name], value)


def test_alone_and_in_halves_layers_compute_what_they_did(tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    exec(GIVEN, given)
    images = given["whole_batch"]()[0]
    plain = given["build"]()
    joined = copy.deepcopy(join_batch_statistics(copy.deepcopy(plain), "cpu"))
    torch.testing.assert_close(joined(images), plain(images), rtol=0, atol=0)
    # A group of one process, told that there are two of the same batch.
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        norm = join_batch_statistics(nn.Sequential(nn.BatchNorm2d(3)), "cpu")
        rows: Tensor = images.bfloat16().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("torch.distributed.get_world_size", lambda: 2)
            patch.setattr("torch.distributed.all_gather", lambda every, here: [each.copy_(here) for each in every])
            patch.setattr("torch.distributed.all_reduce", lambda sums: sums.mul_(2))
            output = norm(rows)
            output.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert output.dtype == rows.dtype
    assert rows.grad is not None
    assert rows.grad.dtype == rows.dtype
    torch.testing.assert_close(output.double(), nn.BatchNorm2d(3).double()(images), rtol=1e-2, atol=1e-2)


class _Own(nn.BatchNorm2d):
    pass


def test_layers_that_cannot_be_joined_are_named() -> None:
    with pytest.raises(RecipeError, match=r"cannot join the statistics of 1, a _Own, on the CPU: train on GPUs"):
        join_batch_statistics(nn.Sequential(nn.BatchNorm2d(3), _Own(3)), "cpu")
    joined = join_batch_statistics(nn.Sequential(nn.BatchNorm2d(3), BatchNormAct2d(3)), "cuda")
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in joined)


@pytest.mark.slow
def test_torchrun_of_two_processes_trains_as_one_with_the_whole_batch(
    people: Path, tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    changes = {
        "loss": {"gather": True},
        "optimizer": {"epochs": 1, "milestones": ()},
        "trainer": {"precision": "fp32", "sync_batchnorm": True, "evaluate_every": 0},
    }
    write_recipe(recipe_of(people, data={"ids_per_batch": 4}, **changes), whole := tmp_path / "whole.json")
    assert main(["train", str(whole), "--out", str(tmp_path / "whole")]) == 0
    write_recipe(recipe_of(people, data={"ids_per_batch": 2}, **changes), halves := tmp_path / "halves.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--node-rank", "0"]
    command += ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", port]
    command += ["-m", "reprism", "train", str(halves), "--trainer.devices", "2", "--out", str(tmp_path / "halves")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[:3000]
    alone, together = (losses(tmp_path / name / "csv" / "version_0" / "metrics.csv") for name in ("whole", "halves"))
    # Later ones differ by more: Adam divides gradients by their size, so that rounding in small ones shows.
    assert len(alone) == 3
    assert together == pytest.approx(alone, rel=3e-4)


def losses(log: Path) -> list[float]:
    with log.open() as file:
        return [float(row["loss/total"]) for row in csv.DictReader(file) if row["loss/total"]]
