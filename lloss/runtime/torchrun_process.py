"""Which of several processes this one is, where torchrun started it: read without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lloss.errors import SettingsError


@dataclass(frozen=True)
class TorchrunProcess:
    """One of the processes of a ``torchrun``, by the environment that it sets."""

    rank: int  # among all; 0 leads
    count: int  # of all processes, 2 or more
    local_rank: int  # among those of this machine
    local_count: int
    node: int  # the machine's number


def torchrun_process() -> TorchrunProcess | None:
    """Return which process of a torchrun this is; None where it is the only one.

    Raises ``SettingsError`` for numbers that cannot be.
    """
    if "RANK" not in os.environ or _number("WORLD_SIZE", 1) < 2:
        return None
    count = _number("WORLD_SIZE", 1)
    found = TorchrunProcess(
        rank=_number("RANK", 0),
        count=count,
        local_rank=_number("LOCAL_RANK"),
        local_count=_number("LOCAL_WORLD_SIZE"),
        node=_number("GROUP_RANK"),
    )
    if not (0 <= found.rank < count and 0 <= found.local_rank < found.local_count):
        raise SettingsError(
            f"RANK={found.rank} of WORLD_SIZE={count}, LOCAL_RANK={found.local_rank} of "
            f"LOCAL_WORLD_SIZE={found.local_count}: cannot be; start the processes with torchrun"
        )
    return found


def refuse_several(what: str, remedy: str) -> None:
    """Raise ``SettingsError`` in one of several processes, which would all do the same."""
    if (process := torchrun_process()) is not None:
        raise SettingsError(f"{what}: does not run in {process.count} processes; {remedy}")


def _number(name: str, default: int | None = None) -> int:
    value = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(value)
    except ValueError:
        raise SettingsError(
            f"{name}={value!r} in the environment of one of several processes: must be a whole "
            "number; start them with torchrun, or remove RANK and WORLD_SIZE"
        ) from None
