"""The processes of a run, started by torchrun, or by Fabric for ``--devices N``."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from efquantface.errors import RecipeError, RunError, RuntimeMissingError

_GIVEN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_BY_FABRIC = ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
_OPERATION = timedelta(minutes=30)  # the watch notices dead processes much earlier
_OBSERVER = "child-process-observer"


@dataclass(frozen=True)
class Started:
    """The processes of a run.

    Attributes:
        rank: of this process, 0 to ``count - 1``.
        count: number of processes; each has its own device.
        local_rank, local_count: the same for the processes on this machine.
        starts: this process starts the others.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    starts: bool = False

    @classmethod
    def find(
        cls, devices: int | None, device: str, environ: Mapping[str, str] = os.environ
    ) -> Started:
        """Find the processes by the variables that torchrun or Fabric sets.

        Args:
            devices: number of processes that the user asks for; None: as many as were started.
            device: ``cpu``, ``cuda`` or ``cuda:1``.
            environ: the environment.

        Raises:
            RecipeError: another number of processes was started, the variables are wrong, or a certain
                GPU is asked for with several devices.
        """
        if all(name in environ for name in _GIVEN):
            rank, count = (_number(environ, name) for name in _GIVEN[:2])
            here = _number(environ, "LOCAL_WORLD_SIZE", str(count))
            local = _number(environ, "LOCAL_RANK", str(rank))
            if devices not in (None, count):
                raise RecipeError(
                    f"devices {devices}: {count} processes were started (WORLD_SIZE). Leave devices "
                    f"out, or start {devices}: torchrun --nproc-per-node {devices} -m efquantface ..."
                )
            found = cls(rank, count, local, here)
        elif all(name in environ for name in _BY_FABRIC):
            rank, count = (_number(environ, name) for name in _BY_FABRIC[:2])
            if devices != count:
                raise RecipeError(
                    f"devices {devices}: {count} processes were started; a script gives all runs of "
                    "one process the same number"
                )
            found = cls(rank, count, rank, count)
        else:
            found = cls(count=devices or 1, local_count=devices or 1, starts=(devices or 1) > 1)
        if not 0 <= found.local_rank < found.local_count <= found.count > found.rank >= 0:
            raise RecipeError(
                f"RANK {found.rank} of WORLD_SIZE {found.count}: no starter's numbers"
            )
        if found.count > 1 and ":" in device:
            raise RecipeError(
                f"device {device} with {found.count} devices: each process has its own; write cuda"
            )
        return found

    def device(self, device: str) -> str:
        """The device of this process: ``cuda`` becomes ``cuda:1``, for example."""
        return f"{device}:{self.local_rank}" if self.count > 1 and device == "cuda" else device

    def launch(self, device: str) -> Fabric:
        """Start the other processes if they are not started yet, and connect all of them.

        Args:
            device: ``cpu`` or ``cuda``.

        Raises:
            RunError: the processes cannot be started from here, or do not find each other.
            RuntimeMissingError: this machine has too few GPUs.
        """
        cuda = device.startswith("cuda")
        if dist.is_initialized():
            raise RunError(
                "one run on several devices a process: start the next run in a new process"
            )
        if cuda and torch.cuda.device_count() < self.local_count:
            raise RuntimeMissingError(
                f"{self.local_count} devices: this machine has {torch.cuda.device_count()} GPUs"
            )
        if self.starts and not _can_be_repeated():
            raise RunError(
                "several devices: every process runs the same command, and a notebook or console "
                "has none; write a script, or use --devices on the command line"
            )
        environment: ClusterEnvironment = LightningEnvironment()
        if not self.starts and "RANK" in os.environ:
            environment = TorchElasticEnvironment()
        strategy = DDPStrategy(
            process_group_backend="nccl" if cuda else "gloo",
            timeout=_OPERATION,
            forward_sync_buffers=False,  # all processes compute the same
            gradient_as_bucket_view=True,
        )
        if self.count % self.local_count:
            raise RunError(f"{self.count} processes: each machine must start the same number")
        # the warning is about 1x1 kernels, whose strides do not matter
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        try:
            fabric = Fabric(
                accelerator="cuda" if cuda else "cpu",
                devices=self.local_count,
                num_nodes=self.count // self.local_count,
                strategy=strategy,
                plugins=[environment],
            )
            fabric.launch()
        except (RuntimeError, ValueError, OSError) as error:
            raise RunError(
                f"process {self.rank} of {self.count}: cannot connect to the others "
                f"({str(error).splitlines()[0][:200]})"
            ) from None
        _quiet_observer()
        return fabric


def one_device(device: str) -> Fabric:
    """A launched Fabric for one device: ``cpu``, ``cuda`` or ``cuda:1``."""
    if device == "cpu":
        fabric = Fabric(accelerator="cpu", devices=1)
    else:
        fabric = Fabric(accelerator="cuda", devices=[torch.device(device).index or 0])
    fabric.launch()
    return fabric


def _number(environ: Mapping[str, str], name: str, otherwise: str = "") -> int:
    text = environ.get(name, otherwise)
    if not text.isdecimal() or len(text) > 6:
        raise RecipeError(f"{name}={text!r} in the environment: a number is expected there")
    return int(text)


def _can_be_repeated() -> bool:
    """Whether this process's command can be run again, to start the other processes."""
    main = sys.modules.get("__main__")
    return not hasattr(sys, "ps1") and getattr(main, "__file__", None) is not None


def _quiet_observer() -> None:
    """Turn off Fabric's observer, which kills the first process at once. Our watch lets it save."""
    for thread in threading.enumerate():
        if thread.name == _OBSERVER:
            thread._run = lambda: True  # type: ignore[attr-defined]
