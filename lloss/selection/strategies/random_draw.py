"""K images at random."""

from __future__ import annotations

from lloss.selection.strategies.top import Top


class RandomDraw(Top):
    """Take K images at random, whatever their scores."""

    by_score = False
