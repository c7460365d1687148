"""The i-th of n shards: every part belongs to one, whatever their number."""

from __future__ import annotations

import itertools

import pytest

from lloss.errors import SettingsError
from lloss.scores.shard_spec import Shard


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_part_is_in_one_shard(count: int) -> None:
    held = [
        number
        for index in range(1, count + 1)
        for number in itertools.islice(Shard(index, count).parts(), 5)
    ]
    assert sorted(held) == list(range(5 * count))
    for index in range(1, count + 1):
        shard = Shard(index, count)
        assert list(itertools.islice(shard.parts(2), 3)) == [shard.part(n) for n in (2, 3, 4)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 4, 10])
@pytest.mark.parametrize("pool", [0, 1, 4, 9, 10, 11, 39, 40, 41, 100])
def test_the_items_of_a_shard_are_those_of_its_parts(pool: int, size: int, count: int) -> None:
    for index in range(1, count + 1):
        mine = [n for n in range(pool) if n // size % count == index - 1]
        assert Shard(index, count).items(pool, size) == len(mine)


def test_a_shard_is_written_as_it_is_read() -> None:
    assert str(Shard.parse("3/12")) == "3/12" and Shard() == Shard.parse("1/1")


@pytest.mark.parametrize("text", ["", "3", "1/2/3", "a/b", "1 / 2", "1/9999999999", "0/3", "4/3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"shard '?{text}'?: give i/n"):
        Shard.parse(text)
