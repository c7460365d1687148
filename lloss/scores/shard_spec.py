"""The i-th of n shards of a scoring run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lloss.errors import SettingsError


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
        """Parse ``i/n``; raise SettingsError for anything else."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not match:
            raise SettingsError(f"shard {text!r}: give i/n, such as 1/4 for the first of four")
        return cls(int(match[1]), int(match[2]))

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
