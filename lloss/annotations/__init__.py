"""Labels that are more than a class name, and parsers of annotation formats; without torch.

To add a format, write its parser here, and add a row to the list of formats in
``lloss/data/label_formats.py``.
"""

from __future__ import annotations

from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.problems import Problems

__all__ = ["ObjectLabel", "PersonLabel", "Problems"]
