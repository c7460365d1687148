"""Labels that are more than a class name, and parsers of annotation formats; without torch.

To add a format, write its parser here, and call it in :func:`lloss.data.object_labels.read_objects`
(boxes) or :func:`lloss.annotations.person_file.parse_persons` (joints).
"""

from __future__ import annotations

from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.problems import Problems

__all__ = ["ObjectLabel", "PersonLabel", "Problems"]
