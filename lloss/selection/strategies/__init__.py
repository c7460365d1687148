"""Strategies: how to choose the K images to label next.

A new strategy of lloss is one file with a subclass of :class:`.Strategy`, and its object in
``STRATEGIES`` of :mod:`lloss.selection.strategies.registry`. An installed package adds one by an
entry point of the group ``lloss.strategies``: its name is the strategy's, and what it names is a
``Strategy`` object.
"""

from __future__ import annotations

from lloss.selection.strategies.registry import STRATEGIES, get_strategy, strategy_names
from lloss.selection.strategies.strategy import Candidates, Picks, Strategy

__all__ = ["STRATEGIES", "Candidates", "Picks", "Strategy", "get_strategy", "strategy_names"]
