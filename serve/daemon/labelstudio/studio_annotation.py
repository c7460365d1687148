"""Annotations and tasks as Label Studio writes them, in exports and in events."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt

from lloss.text.clean_names import clean_name, is_text


def _check_text(text: str) -> str:
    if not is_text(text):
        raise ValueError("unpaired surrogate")
    return text


_Text = Annotated[str, Field(min_length=1), AfterValidator(_check_text)]


class PoolImage(BaseModel):
    """The data of a task that lloss created."""

    lloss_pool: _Text
    lloss_id: _Text


class StudioAnnotation(BaseModel):
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
    def age(self) -> tuple[float, int]:
        """Sorts annotations, the newest last: Unix seconds of the last change, and the number."""
        return _seconds(self.updated_at) or _seconds(self.created_at), self.id

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


def _seconds(stamp: object) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp() if isinstance(stamp, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
