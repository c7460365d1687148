"""Choose the K images to label next."""

from __future__ import annotations

from lloss.selection.select import select
from lloss.selection.selection import Selection, SelectionSettings
from lloss.selection.strategies import strategy_names

__all__ = ["Selection", "SelectionSettings", "select", "strategy_names"]
