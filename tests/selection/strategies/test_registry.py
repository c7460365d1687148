"""Strategies by name, those of installed packages too."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.errors import SettingsError
from lloss.selection import SelectionSettings
from lloss.selection.strategies import STRATEGIES, get_strategy, strategy_names

from ...packages import install
from ..score_tables import best_ids, select_from, tied_table

LAST = """
import numpy as np
from lloss.selection.strategies import Candidates, Picks, Strategy

class Last(Strategy):
    name = "last"
    title = "the K worst scores"
    def limit(self, k):
        return None
    def choose(self, candidates, k):
        return Picks(np.arange(len(candidates))[::-1][:k], ["bad"] * k)

class Nameless(Strategy):
    title = "?"
    def choose(self, candidates, k): ...

last, nameless, number = Last(), Nameless(), 5
"""


def _register(folder: Path, patch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    points = {name: f"own_strategies:{value}" for name, value in names.items()}
    install(folder, patch, "own", {"own_strategies": LAST}, {"lloss.strategies": points})


def test_an_installed_package_adds_a_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(tmp_path, monkeypatch, {"last": "last", "top": "number"})
    assert strategy_names() == (*STRATEGIES, "last")  # a name of lloss stays lloss's
    table = tied_table(60)
    chosen = select_from(table, k=4, strategy="last")
    assert chosen.ids == best_ids(table)[::-1][:4]
    assert chosen.table()["reason"].to_pylist() == ["bad"] * 4


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("number", "to name a Strategy object of lloss.selection.strategies.strategy, it names 5"),
        ("Last", "it names a class; register an object of it"),
        ("nameless", "Nameless has no name; write it"),
        ("last", "its object has the name 'last'; register it under that"),
        ("missing", "strategy 'mine': the entry point own_strategies:missing .*cannot be imported"),
    ],
)
def test_a_package_that_registers_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    _register(tmp_path, monkeypatch, {"mine": value})
    with pytest.raises(SettingsError, match=message):
        get_strategy("mine")


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="strategy 'best': choose one of top, "):
        SelectionSettings(k=1, strategy="best")
    with pytest.raises(SettingsError, match="by '': top needs a column of scores"):
        SelectionSettings(k=1, strategy="top", by="")


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_titles_fit_the_help(name: str) -> None:
    strategy = STRATEGIES[name]
    assert strategy.name == name and 4 < len(strategy.title) < 80
    assert not strategy.title.endswith(".")
