"""Annotations and tasks as Label Studio writes them, in exports and in events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictInt

from lloss.text.clean_names import clean_name, is_text


class Annotation(BaseModel):
    """An annotation of one image.

    Attributes:
        id: its number in Label Studio.
        result: its results; each should be an object.
        was_cancelled: whether the annotator skipped the image.
    """

    model_config = ConfigDict(frozen=True)

    id: StrictInt = 0
    result: list[Any]
    was_cancelled: bool | None = False
    created_at: Any = None
    updated_at: Any = None

    @property
    def changed(self) -> float:
        """When it was last changed, Unix seconds; 0 when unknown."""
        return _seconds(self.updated_at) or _seconds(self.created_at)

    def choice(self, control: str | None = None) -> str:
        """The class of the whole image; "" when there is not exactly one choice.

        Args:
            control: name of the Choices control that counts; by default any.
        """
        chosen = [
            item["value"]["choices"]
            for item in self.result
            if isinstance(item, dict)
            and item.get("type") == "choices"
            and control in (None, item.get("from_name"))
            and isinstance(item.get("value"), dict)
            and item["value"].keys() == {"choices"}  # a region's has coordinates as well
        ]
        if len(chosen) != 1 or not isinstance(chosen[0], list) or len(chosen[0]) != 1:
            return ""
        (name,) = chosen[0]
        return clean_name(name) if isinstance(name, str) and is_text(name) else ""


def pool_image(task: object) -> tuple[str, str] | None:
    """The pool and the image id of a task; None when lloss did not create the task."""
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        return None
    pool, id = data.get("lloss_pool"), data.get("lloss_id")
    if isinstance(pool, str) and isinstance(id, str) and is_text(pool) and is_text(id):
        return pool, id
    return None


def _seconds(stamp: object) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp() if isinstance(stamp, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
