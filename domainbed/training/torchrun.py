"""Several processes that share one run: how they find each other, what they add up, what they tell.

`torchrun --nproc-per-node N -m domainbed.scripts.train ...` starts them, with RANK, WORLD_SIZE, ... in their
environments. Rank 0 leads: it alone claims the run's directory and writes there; the others wait for it
where it works alone, for as long as that takes. A rank that has lost another ends with an error, and torchrun
ends the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, optim
from torch.distributed.rendezvous import rendezvous

from domainbed.errors import DomainBedError, RunError, UsageError
from domainbed.process_group import ProcessGroup
from domainbed.training.config import TrainConfig
from domainbed.training.stop_requests import Interrupted, Preempted

# No evaluation takes as long. Whoever waits for a process that is gone is told at once, or torchrun ends it.
_PATIENCE = timedelta(days=30)


class Over(Exception):
    """Rank 0 has left, with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class TorchrunGroup(ProcessGroup):
    """The processes that torchrun started: gloo between CPUs, NCCL between GPUs. A context manager.

    Source environments are dealt in order and in blocks, the first ranks having one more if they don't
    divide evenly. With R ranks, per update and rank: ERM sends what data parallel training does; the sign
    methods half as much again for the signs, and as much again for the logged cosine; Gram methods about as
    much as ERM where each rank has one environment.

    Whatever a rank does alone stands between two messages of rank 0, `tell` and `hear`. If rank 0 leaves
    while the others wait for one, it tells them at the end of the context, and they leave with its status.

    Raises: RunError wherever another process is gone.

    Attributes:
        awaited: on rank 0, whether the others wait for what it tells.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self._environments: list[int] = []  # of each rank: how many
        self.awaited = True
        self._began = False

    def __enter__(self) -> TorchrunGroup:
        if not dist.is_initialized():
            self._begin()
        return self

    def _begin(self) -> None:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        with _others_alive():
            store, *_ = next(rendezvous("env://"))
            # torchrun keeps the store for its next attempt, which must not find the addresses of this one.
            store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined] # it is there
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.world_size, timeout=_PATIENCE
            )
        self._began = True

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if self.rank == 0 and self.awaited:
            with contextlib.suppress(RunError):  # nobody is left to be told
                self._send((_status_of(error), None))
        over = isinstance(error, Over)
        if isinstance(error, Over) and error.status:
            if self._began:
                # torchrun ends all when one does, and rank 0 has to say why before.
                with contextlib.suppress(RunError):
                    self._send(None)
            raise SystemExit(error.status)
        if self._began and (over or error is None):
            dist.destroy_process_group()
        return over

    def placed(self, config: TrainConfig) -> TrainConfig:
        """The settings with this process's own device.

        Raises: UsageError if there is none.
        """
        if config.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device {config.device}: each process has a GPU of its own; give cuda or cpu")
        if config.device == "cpu" or not torch.cuda.is_available():
            return config
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise UsageError(
                f"{here} processes for {gpus} GPUs; give torchrun --nproc-per-node {gpus}, or --device cpu"
            )
        own = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(own)
        return dataclasses.replace(config, device=f"cuda:{own}")

    def deal(self, num_environments: int) -> slice:
        """Which of the source environments this rank has."""
        parts = np.array_split(np.arange(num_environments), self.world_size)
        self._environments = [len(part) for part in parts]
        return slice(int(parts[self.rank][0]), int(parts[self.rank][-1]) + 1)

    def sum_int(self, number: int) -> int:
        return int(self.sum(torch.tensor(number)))

    def sum(self, tensor: Tensor) -> Tensor:
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def max(self, tensor: Tensor) -> Tensor:
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def _reduced(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        result = tensor.detach()
        with _others_alive():
            dist.all_reduce(result, operation)
        return result

    def broadcast(self, tensor: Tensor) -> Tensor:
        with _others_alive():
            dist.broadcast(tensor, src=0)
        return tensor

    def weighted_share(self, value: Tensor, weight: int) -> Tensor:
        return value * (weight / self.sum_int(weight))

    def sum_gradients(self, optimizer: optim.Optimizer) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = total.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def exchange_shards(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        size, length = len(gradients[0]), self._shard_length(len(gradients[0]))
        rows = F.pad(torch.stack(list(gradients)), (0, self.world_size * length - size))
        # By destination first: to each rank its components of this rank's environments.
        sent = rows.view(len(gradients), self.world_size, length).transpose(0, 1).reshape(-1, length)
        received = sent.new_empty(sum(self._environments), length)
        with _others_alive():
            dist.all_to_all_single(received, sent, self._environments, [len(gradients)] * self.world_size)
        begin = self.rank * length
        return received[:, : min(begin + length, size) - min(begin, size)].unbind()

    def gather_shards(self, shard: Tensor, size: int) -> Tensor:
        length = self._shard_length(size)
        padded = F.pad(shard, (0, length - len(shard)))
        result = shard.new_empty(self.world_size * length)
        with _others_alive():
            dist.all_gather_into_tensor(result, padded)
        return result[:size]

    def _shard_length(self, size: int) -> int:
        """Components of a vector (P,), P = `size`, that a rank sees to; the last ones may have fewer."""
        return -(-size // self.world_size)

    def agree_on_leaving(self, check: Callable[[], None]) -> None:
        """Call `check` on every rank; if it raises a request to leave on one, all leave."""
        request: BaseException | None = None
        try:
            check()
        except (Preempted, Interrupted) as raised:
            request = raised
        if not self.max(torch.tensor(int(request is not None))):
            return
        if self.rank:
            self.hear()
        self.awaited = True
        raise request or Preempted(
            "another process of the run was told to leave; the same command goes on from the checkpoint"
        )

    def alone(self, work: Callable[[], None]) -> None:
        """On rank 0, do `work`, for whose end the others wait in `hear`."""
        self.awaited = True
        work()
        self.tell(None)

    def tell(self, content: Any) -> None:  # noqa: ANN401 - a checkpoint, or nothing
        """On rank 0: what `hear` returns to the others."""
        self._send((None, content))
        self.awaited = False

    def hear(self) -> Any:  # noqa: ANN401
        """On the other ranks: wait for what rank 0 tells; raises Over if it has left."""
        status, content = self._send(None)
        if status is not None:
            raise Over(status)
        return content

    @staticmethod
    def _send(message: tuple[int | None, Any] | None) -> tuple[int | None, Any]:
        """Rank 0's message, on every rank."""
        messages = [message]
        with _others_alive():
            dist.broadcast_object_list(messages, src=0, device=torch.device("cpu"))
        assert messages[0] is not None
        return messages[0]


def leave_group_at_once() -> None:
    """End this process, one of several, well: its work is done.

    While an interpreter ends, threads of the communication may abort it, which torchrun calls a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextlib.contextmanager
def _others_alive() -> Iterator[None]:
    """What a communication raises whose partner is gone, in words."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:100]
        raise RunError(
            f"another process of the run is gone ({reason}); the same command goes on from the checkpoint"
        ) from error


def _status_of(error: BaseException | None) -> int:
    """The exit status that a script has after `error`."""
    if isinstance(error, DomainBedError):
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return 130
    return int(error is not None)
