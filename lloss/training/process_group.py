"""Several processes that train one network together: the group, and what passes between them.

One process leads (rank 0): it reads, decides, prints and writes as a single one does. The others
only take steps with it, see :mod:`lloss.training.torchrun`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

from lloss.errors import SettingsError
from lloss.runtime.torchrun_process import TorchrunProcess
from lloss.text.counts import counted

LOST = ("gloo", "nccl", "connection closed by peer", "connection reset")
"""What is in the message of a collective whose partner is gone."""


@dataclass(frozen=True)
class Processes:
    """This process in its group.

    Attributes:
        process: which of them it is.
        device: that it computes on.
    """

    process: TorchrunProcess
    device: torch.device

    @property
    def count(self) -> int:
        """How many there are."""
        return self.process.count

    def part(self, length: int) -> slice:
        """Return this process's rows of so many: they follow each other, nearly equal in number."""
        return even_part(length, self.count, self.process.rank)

    def gathered(self, own: Tensor, length: int) -> Tensor:
        """Put together all processes' rows, float [length, ...], in the order of the ranks.

        ``own`` are those of :meth:`part`; the gradient flows into them alone.
        """
        most = -(-length // self.count)  # a collective takes equal shapes
        padded = own.new_zeros(most, *own.shape[1:])
        padded[: len(own)] = own.detach()
        found = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(found, padded)
        rows = [even_part(length, self.count, rank) for rank in range(self.count)]
        parts = [each[: at.stop - at.start] for each, at in zip(found, rows)]
        parts[self.process.rank] = own
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all wait for each other here."""
        flags = torch.tensor([float(flag)])
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags)

    def sent(self, value: Any = None) -> Any:
        """Return what the leading process gave."""
        values = [value]
        distributed.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    def collected(self, value: Any) -> list[Any] | None:
        """Return in the leading process what each one gave, in the order of the ranks."""
        values: list[Any] | None = None if self.process.rank else [None] * self.count
        distributed.gather_object(value, values, 0)
        return values

    def listed(self, value: Any) -> list[Any]:
        """Return what each process gave, in the order of the ranks."""
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values


def even_part(length: int, parts: int, number: int) -> slice:
    """Return a part of rows that are cut into nearly equal ones, as ``numpy.array_split`` cuts."""
    each, left = divmod(length, parts)
    start = number * each + min(number, left)
    return slice(start, start + each + (number < left))


@functools.cache
def store_of(process: TorchrunProcess) -> Any:
    """Connect with the store of keys and values that torchrun keeps for its processes."""
    store = next(iter(rendezvous("env://")))[0]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # keys of the one before may stay
    return PrefixStore(f"lloss-{attempt}", store)


@contextlib.contextmanager
def joined(process: TorchrunProcess, device: torch.device) -> Iterator[Processes]:
    """Join the group, by NCCL between GPUs and by gloo between CPUs; wait for the others.

    Raises ``SettingsError`` where this machine has fewer GPUs than processes.
    """
    cuda = device.type == "cuda"
    if cuda:
        refuse_few_gpus(process)
        torch.cuda.set_device(process.local_rank)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=PrefixStore("group", store_of(process)),
        rank=process.rank,
        world_size=process.count,
    )
    yield Processes(process, device)
    distributed.destroy_process_group()  # not after an error: the others may not come


def refuse_few_gpus(process: TorchrunProcess) -> None:
    """Raise ``SettingsError`` where a GPU would have to serve two processes."""
    if (gpus := torch.cuda.device_count()) < process.local_count:
        raise SettingsError(
            f"{process.local_count} processes on {counted(gpus, 'GPU')} of this machine: "
            f"start one for each, with torchrun --nproc-per-node {max(gpus, 1)}; or train on the "
            "CPU, with --device cpu"
        )


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that another process is gone."""
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    found = str(error).lower()
    return isinstance(error, distributed.DistError) or any(word in found for word in LOST)
