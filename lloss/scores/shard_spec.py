"""The i-th of n shards of a scoring run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lloss.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Shard:
    """Every n-th part of a pool, so that n machines score it beside each other.

    A part is the same whoever scores it, so merged shards are what one machine would have written.

    Attributes:
        index: 1 to ``count``.
        count: how many shards there are.
    """

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
        """The reverse of ``str``.

        Raises:
            SettingsError: it is no ``i/n``.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not found:
            raise SettingsError(f"shard {text!r}: give i/n, such as 1/4 for the first of four")
        return cls(int(found[1]), int(found[2]))

    def part(self, place: int) -> int:
        """The number in the whole pool of this shard's part ``place`` (from 0)."""
        return self.index - 1 + place * self.count

    def parts(self, place: int = 0) -> Iterator[int]:
        """The numbers of its parts from ``place`` on, without end."""
        while True:
            yield self.part(place)
            place += 1

    def items(self, pool: int, part_size: int) -> int:
        """How many of a pool's images are this shard's."""
        rounds, rest = divmod(pool, part_size * self.count)
        last = rest - (self.index - 1) * part_size
        return rounds * part_size + max(0, min(part_size, last))
