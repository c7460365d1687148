"""Labels that are more than a class name, and parsers of annotation formats; without torch.

``lloss/data/label_formats.py`` says how to add a format.
"""

from __future__ import annotations

from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.problems import Problems

__all__ = ["ObjectLabel", "PersonLabel", "Problems"]
