"""A moving average of a network's weights, which is evaluated and kept in their place."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_OFFSET = 10
_Tensors = tuple[Tensor, ...] | list[Tensor]


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network's weights and batch statistics, to be updated step by step.

    After step n the average is d·average + (1 - d)·weights with d = min(decay, (n + 1) / (n + 10)): the first steps
    of a short training do not weigh on it for ever. (TensorFlow's ExponentialMovingAverage has the same rule.)

    Args:
        model: The network; copied.
        decay: Largest weight of the average so far, 0 … 1, such as 0.999.
    """

    def update(average: _Tensors, weights: _Tensors, steps: Tensor | int) -> None:
        count = int(steps)
        get_ema_multi_avg_fn(min(decay, (count + 1) / (count + _OFFSET)))(average, weights, steps)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    # Not trained themselves; in training several processes must not wait for their gradients.
    return average.requires_grad_(False)
