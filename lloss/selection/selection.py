"""What to select, and what was selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.errors import SettingsError

Strategy = Literal["top", "diverse", "random"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

CANDIDATES = 4
"""``diverse`` spreads K images over the best 4K."""

ORDERS = ("highest", "lowest")
ORDER_OF = {"loss": "highest", "entropy": "highest", "confidence": "lowest", "margin": "lowest"}
"""Which end of a column is worth labeling first, where that is known."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How to select.

    Attributes:
        k: how many.
        strategy: ``top`` takes the K best scores; ``diverse`` spreads K picks over the 4K
            best by k-center greedy on the embeddings (Sener & Savarese 2018), the first pick
            being the best score; ``random`` ignores the scores.
        by: the column that is the score.
        order: which scores are the best: ``highest`` or ``lowest``; "" for the column's own, see
            :data:`ORDER_OF`.
        subset: choose from so many random images alone (the paper's habit); 0 for all.
        seed: of the sub-pool and of ``random``; an image is drawn by a hash of its id and this.
        at_most: take fewer where fewer than K are left.
        embedding: the column that ``diverse`` measures distances in; "" for
            ``pretrained_embedding`` where the scores have it, or else ``embedding``.
    """

    k: int
    strategy: str = "top"
    by: str = "loss"
    order: str = ""
    subset: int = 0
    seed: int = 0
    at_most: bool = False
    embedding: str = ""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingsError(f"k = {self.k}: select at least 1 image")
        if self.strategy not in STRATEGIES:
            choices = ", ".join(STRATEGIES)
            raise SettingsError(f"strategy {self.strategy!r}: choose one of {choices}")
        if self.order not in ("", *ORDERS):
            raise SettingsError(f"order {self.order!r}: choose one of {', '.join(ORDERS)}")
        if self.embedding and self.strategy != "diverse":
            raise SettingsError(
                f"embedding {self.embedding!r}: only diverse measures distances, not "
                f"{self.strategy}; leave it out"
            )
        if self.by == "id":
            raise SettingsError(f"by {self.by!r}: select by a column of numbers, such as loss")
        if self.subset < 0 or not float(self.subset).is_integer():
            raise SettingsError(f"subset {self.subset}: give a number of images")

    @property
    def candidates(self) -> int:
        """How many images the strategy chooses from, at most."""
        return CANDIDATES * self.k if self.strategy == "diverse" else self.k

    @property
    def direction(self) -> str:
        """``highest`` or ``lowest``, whichever scores are the best; "" where nothing says it."""
        return self.order or ORDER_OF.get(self.by, "")

    @property
    def how(self) -> str:
        """What decides, in words: ``by lowest confidence``."""
        return "at random" if self.strategy == "random" else f"by {self.direction} {self.by}"


@dataclass(frozen=True)
class Selection:
    """The images to label next, and what became of the others.

    Attributes:
        ids: in the order of their rank.
        scores: of each, float64 [K].
        pool: rows that were read.
        excluded: rows left out because the caller named them.
        unscored: rows without a finite score; never selected.
        eligible: rows the choice was made from, after the sub-pool was drawn.
        settings: that it was made with.
        unspread: candidates of ``diverse`` left out because no distance to them can be measured.
        spread_by: the column that distances were measured in; "" where none were.
    """

    ids: list[str]
    scores: NDArray[np.float64]
    pool: int
    excluded: int
    unscored: int
    eligible: int
    settings: SelectionSettings
    unspread: int = 0
    spread_by: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def table(self) -> pa.Table:
        """Columns ``id``, ``score`` and ``rank`` (from 1); metadata say what they are ranked by."""
        rank = pa.array(range(1, len(self.ids) + 1), pa.int64())
        ids = pa.array(self.ids, pa.string())
        table = pa.table({"id": ids, "score": self.scores, "rank": rank})
        said = {"strategy": self.settings.strategy, "by": self.settings.by}
        return table.replace_schema_metadata({**said, "order": self.settings.direction})

    def unusable(self) -> list[str]:
        """How many images could not be chosen for what their scores are, in words."""
        counts = {
            "without a finite score": self.unscored,
            "with an infinite or extreme embedding left out": self.unspread,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]
