"""Which K images to label next."""

from __future__ import annotations

from lloss.selection.select import STRATEGIES, Selection, SelectionSettings, select

__all__ = ["STRATEGIES", "Selection", "SelectionSettings", "select"]
