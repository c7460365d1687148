"""See :mod:`tests.waiting`."""

from __future__ import annotations

from ...waiting import PATIENCE, until

__all__ = ["PATIENCE", "until"]
