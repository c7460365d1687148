"""Strategies by name."""

from __future__ import annotations

from lloss import entry_points
from lloss.selection.strategies.badge import Badge, LossBadge
from lloss.selection.strategies.core_set import CoreSet, RandomKCenter
from lloss.selection.strategies.diverse import Diverse
from lloss.selection.strategies.herding import Coverage, Herding
from lloss.selection.strategies.power import Power
from lloss.selection.strategies.random_draw import RandomDraw
from lloss.selection.strategies.strategy import Strategy
from lloss.selection.strategies.top import Top
from lloss.selection.strategies.typiclust import TypiClust

_ALL: tuple[Strategy, ...] = (
    Top(),
    Diverse(),
    RandomDraw(),
    Herding(),
    Coverage(),
    Power(),
    CoreSet(),
    Badge(),
    LossBadge(),
    TypiClust(),
    RandomKCenter(),
)
STRATEGIES: dict[str, Strategy] = {each.name: each for each in _ALL}
"""Those of lloss."""


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies: those of lloss, then those of installed packages."""
    return entry_points.names_with(entry_points.STRATEGIES, STRATEGIES)


def get_strategy(name: str) -> Strategy:
    """Return the strategy of this name.

    Raises ``SettingsError`` for an unknown name, or where a package registers something else.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    known, needed = strategy_names(), ("name", "title")
    return entry_points.load_object(
        entry_points.STRATEGIES,
        name,
        Strategy,  # type: ignore[type-abstract]  # of which it is an object
        known,
        needed,
    )
