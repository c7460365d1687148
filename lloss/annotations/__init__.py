"""Labels that are more than a class name, and parsers of annotation formats; without torch.

To add a format, write its parser here; ``lloss/data/label_formats.py`` says where it is called.
"""

from __future__ import annotations

from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.problems import Problems

__all__ = ["ObjectLabel", "PersonLabel", "Problems"]
