"""Batch normalisation over the batches of all processes.

On GPUs this is PyTorch's ``SyncBatchNorm``, which the CPU does not have. There the same is done here: every process
gathers the others' means and variances, and in the backward pass adds up the two sums that their gradients need.

Source: Ioffe and Szegedy, "Batch Normalization", https://arxiv.org/abs/1502.03167, section 3 (the gradient).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reprism.training.recipes import RecipeError


def join_batch_statistics(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Have every batch normalisation inside ``model`` take its statistics over the batches of all processes.

    Parameters, running statistics and their names stay as they are. In eval mode, and where there is one process, the
    layers compute what they did.

    Args:
        model: A network whose batch normalisations are layers inside it.
        device: Device that it trains on.

    Returns:
        ``model``, changed in place.

    Raises:
        RecipeError: On the CPU, a batch normalisation is of a class of its own.
    """
    if torch.device(device).type != "cpu":
        # timm's: torch's own would drop the activations that timm's layers have inside.
        convert_sync_batchnorm(model)
        return model
    for name, norm in model.named_modules():
        if type(norm) in _JOINED:
            # A class, unlike a forward function set on the instance, goes through copy.deepcopy.
            norm.__class__ = _JOINED[type(norm)]
        elif isinstance(norm, _BatchNorm):
            raise RecipeError(
                f"trainer.sync_batchnorm cannot join the statistics of {name}, a {type(norm).__name__}, on the CPU: "
                "train on GPUs, or leave it out"
            )
    return model


class _BatchNorm1d(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch names it so
        return _joined(self, input) if _together(self) else super().forward(input)


class _BatchNorm2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch names it so
        return _joined(self, input) if _together(self) else super().forward(input)


class _BatchNormAct2d(BatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.act(self.drop(_joined(self, x))) if _together(self) else super().forward(x)
        return output


_JOINED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm1d,
    nn.BatchNorm2d: _BatchNorm2d,
    BatchNormAct2d: _BatchNormAct2d,
}


def _together(norm: nn.Module) -> bool:
    return norm.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.compiler.disable  # collectives are no part of a graph
def _joined(norm: _BatchNorm, x: Tensor) -> Tensor:
    y, mean, variance, count = _JoinedBatchNorm.apply(x, norm.weight, norm.bias, norm.eps)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * count / (count - 1), momentum)
    return y


class _JoinedBatchNorm(torch.autograd.Function):
    """Normalises by the mean and variance over all processes; sums are float32 for halves."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = x if x.dtype == torch.float64 else x.float()
        channels = x.shape[1]
        own = torch.var_mean(values, _others(x), correction=0)
        here = torch.cat([*own, values.new_tensor([x.numel() // channels])])
        every = [torch.empty_like(here) for _ in range(dist.get_world_size())]
        dist.all_gather(every, here)
        # Batches may differ in size. Deviations from the common mean are those from each batch's own and the means'.
        variances, means, counts = torch.stack(every).split([channels, channels, 1], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = (values - _along(mean, x)) * _along(scale if weight is None else scale * weight, x)
        return (y if bias is None else y + _along(bias, x)).to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        grad = grad.to(mean.dtype)
        normal = (x.to(mean.dtype) - _along(mean, x)) * _along(scale, x)
        sums = torch.stack([grad.sum(_others(x)), (grad * normal).sum(_others(x))])
        grad_bias, grad_weight = sums  # of this process's rows: training averages them over processes, as all others
        sums = sums.clone()
        dist.all_reduce(sums)
        along = [_along(each / count, x) for each in sums]
        grad_x = (grad - along[0] - normal * along[1]) * _along(scale if weight is None else scale * weight, x)
        needed = ctx.needs_input_grad
        return grad_x.to(x.dtype), grad_weight if needed[1] else None, grad_bias if needed[2] else None, None


def _others(x: Tensor) -> list[int]:
    """Return the dimensions that statistics are taken over: all but the channels."""
    return [dim for dim in range(x.dim()) if dim != 1]


def _along(values: Tensor, x: Tensor) -> Tensor:
    """Return C values in a shape that meets the channels of ``x``."""
    return values.view(-1, *[1] * (x.dim() - 2))
