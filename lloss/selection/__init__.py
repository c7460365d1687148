"""Choose the K images to label next. The strategies are in :mod:`lloss.selection.strategies`."""

from __future__ import annotations

from lloss.selection.select import select
from lloss.selection.selection import Selection, SelectionSettings
from lloss.selection.strategies import STRATEGIES

__all__ = ["STRATEGIES", "Selection", "SelectionSettings", "select"]
