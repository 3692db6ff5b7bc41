"""Share among commands that a Ray cluster may work for: their options, the connection, and the model's journey."""

import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from reprism.cli.embedding import NetworkSettings, load_embedder

if TYPE_CHECKING:
    from reprism.gallery.workers import ShippedModel


@dataclass(frozen=True)
class ClusterSettings:
    """Ray cluster that does the work, and what its workers take."""

    ray: str | None = None
    """Let a Ray cluster do the work: local (all of this machine), auto (the cluster that this machine is part of), or
    its address. Each machine needs the same Reprism, and reaches images and output under the same names."""
    workers: int | None = None
    """With --ray, how many workers hold the network (default: one per GPU; without GPUs, as there are cores for)."""
    worker_cpus: int | None = None
    """With --ray and without GPUs, cores per worker (default: of the smallest machine all but an eighth)."""

    def connect(self) -> bool:
        """Connect to the cluster, if there is to be one; return whether there is.

        Raises:
            ValueError: Ray is not installed, there is no such cluster, or the other options lack ``--ray``.
        """
        if self.ray is None:
            if (self.workers, self.worker_cpus) != (None, None):
                raise ValueError("--workers and --worker-cpus go with --ray: give --ray local for this machine alone")
            return False
        for flag, value in (("--workers", self.workers), ("--worker-cpus", self.worker_cpus)):
            if value is not None and value < 1:
                raise ValueError(f"{flag} must be at least 1, it is {value}")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless asked for
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise ValueError(f"--ray needs {error.name}: pip install 'reprism[ray]'") from error
        try:
            ray.init(address=self.ray, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"--ray {self.ray}: no cluster to connect to ({str(error).splitlines()[0]}). Start one by `ray start "
                "--head`, or give --ray local"
            ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # ours counts what is in the gallery
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return True


ClusterOptions = Annotated[ClusterSettings, tyro.conf.arg(name="")]
"""These settings as a field of a command's arguments, without a prefix."""


def ship(model: Path, network: NetworkSettings, *, batch_size: int, flip: bool) -> "ShippedModel":
    """Return a model that workers can open as this machine does (:func:`reprism.cli.embedding.load_embedder`).

    Raises:
        CheckpointError: There is no such model.
    """
    from reprism.gallery.workers import ShippedModel

    beside = {}
    if network.preprocess is not None and network.preprocess != "imagenet":
        beside = {model.with_suffix(".yaml").name: Path(network.preprocess).read_bytes()}
        network = replace(network, preprocess=None)
    shipped = ShippedModel.of(model, partial(load_embedder, network=network, batch_size=batch_size, flip=flip))
    return replace(shipped, files=shipped.files | beside)
