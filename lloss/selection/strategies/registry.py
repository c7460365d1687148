"""Strategies by name."""

from __future__ import annotations

from lloss import entry_points
from lloss.errors import SettingsError
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
    others = entry_points.registered(entry_points.STRATEGIES)
    return (*STRATEGIES, *(name for name in others if name not in STRATEGIES))


def get_strategy(name: str) -> Strategy:
    """Return the strategy of this name.

    Raises ``SettingsError`` for an unknown name, or where a package registers something else.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    if name not in strategy_names():
        raise SettingsError(f"strategy {name!r}: choose one of {', '.join(strategy_names())}")
    try:
        found = entry_points.load(entry_points.STRATEGIES, name)
    except SettingsError as error:
        raise SettingsError(f"strategy {error}") from error
    if not isinstance(found, Strategy):
        kind = "a class; register an object of it" if isinstance(found, type) else repr(found)
        raise SettingsError(
            f"strategy {name!r}: its entry point is to name a Strategy object of "
            f"lloss.selection.strategies, it names {kind}"
        )
    if missing := [each for each in ("name", "title") if not hasattr(found, each)]:
        raise SettingsError(
            f"strategy {name!r}: {type(found).__name__} has no {missing[0]}; write it"
        )
    if found.name != name:
        raise SettingsError(
            f"strategy {name!r}: its object has the name {found.name!r}; register it under that"
        )
    return found
