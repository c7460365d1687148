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


KUBERNETES = {"JOB_COMPLETION_INDEX": "2", "LLOSS_SHARDS": "4"}
BATCH = {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "4"}
SLURM = {
    "SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "13",
    "SLURM_ARRAY_TASK_COUNT": "4",
}  # fmt: skip


@pytest.mark.parametrize("env", [KUBERNETES, BATCH, SLURM])
def test_a_task_of_an_array_has_the_shard_of_its_number(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Shard.from_env(env) == Shard(3, 4)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert Shard.parse("from-env") == Shard(3, 4)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "none of JOB_COMPLETION_INDEX, .* is set; give --shard i/n"),
        ({**KUBERNETES, **BATCH}, "JOB_COMPLETION_INDEX and AWS_BATCH_JOB_ARRAY_INDEX is set"),
        ({"JOB_COMPLETION_INDEX": "2"}, "LLOSS_SHARDS is not set; set it"),
        ({**KUBERNETES, "LLOSS_SHARDS": "four"}, "LLOSS_SHARDS = 'four' is not a number"),
        ({**KUBERNETES, "LLOSS_SHARDS": "2"}, "JOB_COMPLETION_INDEX = '2' is not one of 2 tasks"),
        ({**BATCH, "AWS_BATCH_JOB_ARRAY_INDEX": "-1"}, "INDEX = '-1' is not a number"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_MIN is not set"),
        ({**SLURM, "SLURM_ARRAY_TASK_MAX": "19"}, "4 tasks numbered 10 to 19; number the array"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "9"}, "TASK_ID = '9' is not one of 4 tasks"),
    ],
)
def test_what_a_scheduler_does_not_say_is_not_guessed(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Shard.from_env(env)
