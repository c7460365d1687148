"""The strategies by name. A new one is a module here and a line in :data:`STRATEGIES`."""

from __future__ import annotations

from lloss.selection.strategies.diverse import Diverse
from lloss.selection.strategies.random_draw import RandomDraw
from lloss.selection.strategies.strategy import Strategy
from lloss.selection.strategies.top import Top

STRATEGIES: dict[str, Strategy] = {"top": Top(), "diverse": Diverse(), "random": RandomDraw()}

__all__ = ["STRATEGIES", "Strategy"]
