"""What is known of images one by one: a page's own questions to the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .selections import Ranked

State = Literal["free", "pending", "labeled", "skipped"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of an image.

    Attributes:
        state: whether it is free to be handed out, handed out, labeled, or not to be handed out.
        label: that it was given; "" where that is kept elsewhere.
        expires: when it becomes free again if it is pending, Unix seconds; else 0.
    """

    state: State = "free"
    label: str = ""
    expires: float = 0.0


class Held(Protocol):
    """Reads; it changes nothing."""

    def marks(self, pool: str, ids: Sequence[str]) -> dict[str, Mark]:
        """What is known of these images, for each of them."""

    def batch(self, pool: str, id: str) -> list[Ranked] | None:
        """The images that a selection handed out, best first; None where there is none such."""

    def listed(self, pool: str, state: State, offset: int, limit: int) -> list[tuple[str, Mark]]:
        """Images of a state, by id."""
