"""Labels that are more than a class name, and the formats they come in.

Readers of files give these; nothing here needs torch.
"""

from __future__ import annotations

from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.problems import Problems

__all__ = ["ObjectLabel", "PersonLabel", "Problems"]
