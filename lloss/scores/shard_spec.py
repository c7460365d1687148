"""The i-th of n shards of a scoring run."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lloss.errors import SettingsError

FROM_ENV = "from-env"

_KUBERNETES, _SLURM, _BATCH = (
    "JOB_COMPLETION_INDEX",
    "SLURM_ARRAY_TASK_ID",
    "AWS_BATCH_JOB_ARRAY_INDEX",
)
"""What an Indexed Job, an array of Slurm's and one of AWS Batch's set in each of their tasks."""
SHARDS = "LLOSS_SHARDS"
"""How many tasks an Indexed Job has: Kubernetes does not say it to them."""

_SLURM_RANGE = ("MIN", "MAX", "COUNT")


@dataclass(frozen=True, slots=True)
class Shard:
    """Every n-th part of a pool, so that n machines score it side by side; ``index`` is from 1."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise SettingsError(
                f"shard {self}: give i/n with i from 1 to n, such as 1/4 to 4/4 on four machines"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse ``i/n`` or ``from-env``; raise SettingsError for anything else."""
        if text == FROM_ENV:
            return cls.from_env(os.environ)
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not match:
            raise SettingsError(f"shard {text!r}: give i/n, such as 1/4 for the first of four")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Shard:
        """The shard of this task of an array, as its scheduler numbers it.

        SettingsError where no scheduler, or more than one, or only a part of what is needed is set.
        """
        found = [name for name in (_KUBERNETES, _SLURM, _BATCH) if name in env]
        if len(found) != 1:
            given = " and ".join(found) or f"none of {_KUBERNETES}, {_SLURM}, {_BATCH}"
            raise SettingsError(f"--shard from-env: {given} is set; give --shard i/n")
        if found[0] == _KUBERNETES:
            place, count = _number(env, _KUBERNETES), _number(env, SHARDS)
        elif found[0] == _BATCH:
            place, count = _number(env, _BATCH), _number(env, "AWS_BATCH_JOB_ARRAY_SIZE")
        else:
            first, last, count = (_number(env, f"SLURM_ARRAY_TASK_{x}") for x in _SLURM_RANGE)
            if last - first != count - 1:
                raise SettingsError(
                    f"--shard from-env: {count} tasks numbered {first} to {last}; number the "
                    "array without gaps, such as sbatch --array=0-9"
                )
            place = _number(env, _SLURM) - first
        if not 0 <= place < count:
            raise SettingsError(
                f"--shard from-env: {found[0]} = {env[found[0]]!r} is not one of {count} tasks"
            )
        return cls(place + 1, count)

    def part(self, place: int) -> int:
        """The number in the whole pool of this shard's part ``place`` (from 0)."""
        return self.index - 1 + place * self.count

    def parts(self, place: int = 0) -> Iterator[int]:
        """The numbers of its parts from ``place`` on, without end."""
        return itertools.count(self.part(place), self.count)

    def items(self, pool: int, part_size: int) -> int:
        """How many of ``pool`` images are this shard's."""
        rounds, rest = divmod(pool, part_size * self.count)
        last = rest - (self.index - 1) * part_size
        return rounds * part_size + max(0, min(part_size, last))


def _number(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        what = f"= {text!r} is not a number" if text else "is not set"
        raise SettingsError(f"--shard from-env: {name} {what}; set it, or give --shard i/n")
    return int(text)
