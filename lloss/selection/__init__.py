"""Choose the K images to label next."""

from __future__ import annotations

from lloss.selection.select import select
from lloss.selection.selection import STRATEGIES, Selection, SelectionSettings, Strategy

__all__ = ["STRATEGIES", "Selection", "SelectionSettings", "Strategy", "select"]
