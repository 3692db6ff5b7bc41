"""On a GPU: the same descriptors, losses, ranks and distances as on the CPU, and runs that train, stop and go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reprism
from reprism.losses import TotalLoss
from reprism.models.survey import measure
from reprism.precision import fastest_precision
from reprism.training.run import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use is here")


@pytest.fixture(scope="module")
def model() -> reprism.PartNet:
    torch.manual_seed(0)
    model = reprism.build_model("p1+p2(s2c2)+p3(s3c3)", "resnet18", num_classes=8, size=(128, 64))
    model.train()(torch.randn(8, 3, 128, 64))  # batch statistics of its own
    return model


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (90, 40, 3), dtype=np.uint8) for _ in range(70)]


@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-5), ("bf16", 1e-2), ("fp16", 1e-3)])
def test_descriptors_are_the_cpus(
    model: reprism.PartNet, crops: list[np.ndarray], precision: Any, apart: float
) -> None:
    expected = reprism.Embedder(model, precision="fp32", device="cpu").embed(crops)
    rows = reprism.Embedder(model, precision=precision, device="cuda").embed(crops)
    assert rows.dtype == np.float32
    np.testing.assert_allclose((rows * rows).sum(1), 1, atol=1e-5)
    assert (1 - (rows * expected).sum(1)).max() < apart


def test_a_gpu_is_taken_where_there_is_one(model: reprism.PartNet) -> None:
    embedder = reprism.Embedder(model)
    assert embedder.device.type == "cuda"
    assert embedder.precision == fastest_precision("cuda")
    assert all(parameter.device.type == "cpu" for parameter in model.parameters()), "the caller's network stays"


def test_losses_and_gradients_are_the_cpus(model: reprism.PartNet) -> None:
    torch.manual_seed(1)
    images, labels = torch.randn(16, 3, 128, 64), torch.arange(8).repeat_interleave(2)
    found = {}
    for device in ("cpu", "cuda"):
        # In float64, so that nothing but a wrong operation can differ.
        net = reprism.build_model("p1+p2(s2c2)", "resnet18", num_classes=8, size=(128, 64))
        net.load_state_dict({name: model.state_dict()[name] for name in net.state_dict()})
        net = net.double().train().to(device)
        loss = TotalLoss()(net(images.double().to(device)), labels.to(device))
        loss.total.backward()
        gradients = {name: each.grad.cpu() for name, each in net.named_parameters() if each.grad is not None}
        found[device] = ([term.item() for term in loss], gradients)
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=1e-9)
    for name, expected in found["cpu"][1].items():
        torch.testing.assert_close(found["cuda"][1][name], expected, rtol=1e-6, atol=1e-9, msg=name)


def test_a_run_trains_on_the_gpu_and_its_model_is_read_everywhere(
    people: Path, tmp_path: Path, recipe_of: Callable[..., Any]
) -> None:
    recipe = recipe_of(
        people,
        data={"workers": 2, "erasing": 0.0},
        model={"backbone": "resnet10t"},
        optimizer={"epochs": 16, "milestones": (12,), "lr": 4e-3},
        trainer={"accelerator": "auto", "evaluate_every": 0},
    )
    folder = train(recipe, tmp_path / "run").folder
    assert (
        torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["cuda_rng_state"].dtype == torch.uint8
    )
    losses = _losses(folder)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    picture = [np.full((64, 32, 3), 120, np.uint8)]
    rows = [
        reprism.Embedder(folder / "model.safetensors", precision="fp32", device=d).embed(picture)
        for d in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*rows, atol=1e-4)


def test_a_stopped_run_goes_on_with_the_same_batches_and_random_numbers(
    people: Path, tmp_path: Path, recipe_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fixed algorithms, so that two runs can be compared at all; stochastic depth draws on the GPU at each step.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    original = reprism.models.backbone.timm.create_model
    monkeypatch.setattr(
        reprism.models.backbone.timm,
        "create_model",
        lambda *args, **kinds: original(*args, **{**kinds, "drop_path_rate": 0.5}),
    )
    recipe = recipe_of(people, model={"backbone": "resnet10t"}, trainer={"accelerator": "auto"})
    whole = train(recipe, tmp_path / "whole").folder

    class CutError(Exception): ...

    step = reprism.training.module.ReIDModule.training_step

    def cut(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 5:
            raise CutError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(reprism.training.module.ReIDModule, "training_step", cut)
        with pytest.raises(CutError):
            train(recipe, tmp_path / "cut")
    torch.cuda.manual_seed(99)
    train(recipe, tmp_path / "cut", resume=True)
    np.testing.assert_allclose(_losses(tmp_path / "cut"), _losses(whole), rtol=2e-2)


def test_a_loss_that_is_not_finite_ends_a_run_on_the_gpu(
    people: Path, tmp_path: Path, recipe_of: Callable[..., Any]
) -> None:
    recipe = recipe_of(people, optimizer={"lr": 1e30}, trainer={"accelerator": "auto", "log_every": 2})
    with pytest.raises(ValueError, match="not finite any more"):
        train(recipe, tmp_path / "run")


def test_what_a_network_costs_is_measured_on_the_gpu() -> None:
    cost = measure("resnet10t", "p1", (64, 32), batch=4, dtype=torch.bfloat16, device="cuda")
    assert cost.images_per_second > 0


def _losses(folder: Path) -> np.ndarray:
    """Every step's total loss."""
    import csv

    found: dict[int, float] = {}
    for path in sorted((folder / "csv").rglob("metrics.csv")):
        with path.open() as file:
            found |= {
                int(row["step"]): float(row["loss/total"]) for row in csv.DictReader(file) if row.get("loss/total")
            }
    return np.array([found[step] for step in sorted(found)])
