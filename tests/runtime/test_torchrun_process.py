from __future__ import annotations

import pytest

from lloss.errors import SettingsError
from lloss.runtime.torchrun_process import TorchrunProcess, refuse_several, torchrun_process

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = TorchrunProcess(rank=3, count=4, local_rank=1, local_count=2, node=1)
    assert torchrun_process() == expected
    with pytest.raises(SettingsError, match="lloss fit: does not run in 4 processes; go alone"):
        refuse_several("lloss fit", "go alone")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert torchrun_process() is None
    refuse_several("lloss fit", "go alone")
    monkeypatch.delenv("WORLD_SIZE")
    assert torchrun_process() is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK")
    assert torchrun_process() is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RANK", "4", "RANK=4 of WORLD_SIZE=4"),
        ("LOCAL_RANK", "2", "LOCAL_RANK=2 of LOCAL_WORLD_SIZE=2"),
        ("WORLD_SIZE", "many", "WORLD_SIZE='many' in the environment"),
        ("LOCAL_RANK", "", "LOCAL_RANK='' in the environment"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{said}.*torchrun"):
        torchrun_process()
