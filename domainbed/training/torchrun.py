"""The process group of a run that several processes share.

torchrun starts them: `torchrun --nproc-per-node N -m domainbed.scripts.train ...`. Rank 0 is the leader. Only
the leader claims the run's directory and writes to it; the other ranks wait while it works alone. If a
process dies, the others end with an error, and torchrun ends those that remain.
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

# Longer than any evaluation. If a process dies, the others notice at once, or torchrun ends them.
_TIMEOUT = timedelta(days=30)

_Message = tuple[int | None, Any]
"""What rank 0 sends to the other ranks: its exit status if it has left the context, and a command."""


class Finished(Exception):
    """Rank 0 has finished or failed.

    Attributes:
        status: its exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class TorchrunGroup(ProcessGroup):
    """The processes that torchrun started, connected by gloo (CPU tensors) and NCCL (CUDA tensors).

    Source environments are assigned to ranks in contiguous blocks, which differ in size by at most one. For
    each update, a rank sends as much as in data parallel training with ERM; half of that more for the signs
    and again as much for the logged cosine with the sign methods; and about as much as ERM with the Gram
    methods, if each rank has one environment.

    While rank 0 works alone, the others wait for its next command. If rank 0 leaves the context meanwhile,
    they leave it too, with its exit status.

    All methods that communicate raise RunError if another process has died.

    Attributes:
        others_wait: on rank 0, whether the other ranks are waiting for a command.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.others_wait = True
        self._environments_per_rank: list[int] = []
        self._owns_backend = False

    def __enter__(self) -> TorchrunGroup:
        if not dist.is_initialized():
            self._initialize_backend()
        return self

    def _initialize_backend(self) -> None:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        with _lost_process_reported():
            store, *_ = next(rendezvous("env://"))
            # When torchrun restarts processes it reuses the store, which still has the old addresses.
            store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined] # exists
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.world_size, timeout=_TIMEOUT
            )
        self._owns_backend = True

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if self.rank == 0 and self.others_wait:
            with contextlib.suppress(RunError):  # the other processes may have died
                self._broadcast_message((_exit_status(error), None))
        finished = isinstance(error, Finished)
        if isinstance(error, Finished) and error.status:
            if self._owns_backend:
                # torchrun ends all processes when one exits. Wait until rank 0 has printed its error and
                # exited, which makes this broadcast fail.
                with contextlib.suppress(RunError):
                    self._broadcast_message(None)
            raise SystemExit(error.status)
        if self._owns_backend and (finished or error is None):
            dist.destroy_process_group()
        return finished

    def with_own_device(self, config: TrainConfig) -> TrainConfig:
        """The settings with the device of this process.

        Raises: UsageError if there are fewer GPUs than processes, or --device names a particular one.
        """
        if config.device not in ("auto", "cpu", "cuda"):
            raise UsageError(
                f"--device {config.device} does not work with torchrun, which gives each process its own "
                "GPU; use --device cuda or cpu"
            )
        if config.device == "cpu" or not torch.cuda.is_available():
            return config
        processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if processes > gpus:
            raise UsageError(
                f"{processes} processes for {gpus} GPUs; use torchrun --nproc-per-node {gpus}, or "
                "--device cpu"
            )
        index = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(index)
        return dataclasses.replace(config, device=f"cuda:{index}")

    def assign_environments(self, num_environments: int) -> slice:
        """Assign the source environments to ranks; returns those of this rank."""
        blocks = np.array_split(np.arange(num_environments), self.world_size)
        self._environments_per_rank = [len(block) for block in blocks]
        own = blocks[self.rank]
        return slice(int(own[0]), int(own[-1]) + 1)

    def sum_int(self, number: int) -> int:
        return int(self.sum(torch.tensor(number)))

    def own_environments(self, number: int) -> slice:
        start = sum(self._environments_per_rank[: self.rank])
        return slice(start, start + number)

    def sum(self, tensor: Tensor) -> Tensor:
        return self._all_reduce(tensor, dist.ReduceOp.SUM)

    def max(self, tensor: Tensor) -> Tensor:
        return self._all_reduce(tensor, dist.ReduceOp.MAX)

    def _all_reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        result = tensor.detach()
        with _lost_process_reported():
            dist.all_reduce(result, operation)
        return result

    def broadcast(self, tensor: Tensor) -> Tensor:
        with _lost_process_reported():
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
        # Ordered by destination: each rank gets its components of this rank's environments.
        sent = rows.view(len(gradients), self.world_size, length).transpose(0, 1).reshape(-1, length)
        # An algorithm may pass several gradients of each environment.
        each = len(gradients) // self._environments_per_rank[self.rank]
        received_sizes = [each * number for number in self._environments_per_rank]
        received = sent.new_empty(sum(received_sizes), length)
        with _lost_process_reported():
            dist.all_to_all_single(
                received,
                sent,
                output_split_sizes=received_sizes,
                input_split_sizes=[len(gradients)] * self.world_size,
            )
        shard = self.shard(size)
        return received[:, : shard.stop - shard.start].unbind()

    def shard(self, size: int) -> slice:
        length = self._shard_length(size)
        return slice(min(self.rank * length, size), min((self.rank + 1) * length, size))

    def gather_shards(self, shard: Tensor, size: int) -> Tensor:
        length = self._shard_length(size)
        padded = F.pad(shard, (0, length - len(shard)))
        result = shard.new_empty(self.world_size * length)
        with _lost_process_reported():
            dist.all_gather_into_tensor(result, padded)
        return result[:size]

    def _shard_length(self, size: int) -> int:
        """Number of components in a shard of a vector (P,), with P = `size`. Last shards may be shorter."""
        return -(-size // self.world_size)

    def stop_together(self, check: Callable[[], None]) -> None:
        """Call `check` on every rank. If it raises Preempted or Interrupted on one rank, all ranks stop."""
        request: BaseException | None = None
        try:
            check()
        except (Preempted, Interrupted) as raised:
            request = raised
        if not self.max(torch.tensor(int(request is not None))):
            return
        if self.rank:
            self.wait_for_command()
        self.others_wait = True
        raise request or Preempted(
            "Another process of the run was asked to stop. Run the same command to resume from the "
            "checkpoint."
        )

    def work_alone(self, work: Callable[[], None]) -> None:
        """On rank 0: call `work`, while the other ranks are in `wait_for_command`."""
        self.others_wait = True
        work()
        self.broadcast_command(None)

    def broadcast_command(self, command: Any) -> None:  # noqa: ANN401 - a checkpoint or None
        """On rank 0: make `wait_for_command` return `command` on the other ranks."""
        self._broadcast_message((None, command))
        self.others_wait = False

    def wait_for_command(self) -> Any:  # noqa: ANN401 - as above
        """On the other ranks: wait for rank 0's command. Raises `Finished` if rank 0 has left the context."""
        status, command = self._broadcast_message(None)
        if status is not None:
            raise Finished(status)
        return command

    @staticmethod
    def _broadcast_message(message: _Message | None) -> _Message:
        """Rank 0's message, on every rank."""
        messages = [message]
        with _lost_process_reported():
            dist.broadcast_object_list(messages, src=0, device=torch.device("cpu"))
        assert messages[0] is not None
        return messages[0]


def exit_immediately() -> None:
    """End this process, one of several, with status 0 and without cleaning up.

    While an interpreter shuts down, threads of the backend may abort it, which torchrun reports as a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextlib.contextmanager
def _lost_process_reported() -> Iterator[None]:
    """Turn the error of a communication whose partner has died into a RunError of one line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:100]
        raise RunError(
            f"another process of the run has died ({reason}); run the same command to resume from the "
            "checkpoint"
        ) from error


def _exit_status(error: BaseException | None) -> int:
    """Exit status of a script that ends with `error`."""
    if isinstance(error, DomainBedError):
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return 130
    return int(error is not None)
