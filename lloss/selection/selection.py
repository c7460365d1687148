"""What to select, and what was selected."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.errors import SettingsError
from lloss.manifest import PRETRAINED_EMBEDDING, class_name
from lloss.selection.strategies import get_strategy, strategy_names
from lloss.selection.strategies.herding import Herding
from lloss.selection.strategies.strategy import EMBEDDING
from lloss.selection.strategies.top import Top
from lloss.text.counts import counted

PREDICTED, PREDICTION = "predicted", "prediction"
"""What users call the groups of the classes predicted, and their column."""

BALANCED = "balanced"
"""The value of ``class_weight`` that lets rare predicted classes weigh more."""

ORDERS = ("highest", "lowest")
ORDER_OF = {
    "loss": "highest",
    "entropy": "highest",
    "confidence": "lowest",
    "margin": "lowest",
    "bald": "highest",
    "tod": "highest",
}
"""Which end of a column is worth labeling first, where that is known."""

NO_GROUP = "(none)"
"""The group of images that have no value in the column to balance by."""

_GROUPS_SHOWN = 12

HERDING, TOP = Herding.name, Top.name

COMPARED_MOST = 10_000
"""Picks up to which images are compared if no strategy is given: the cost is quadratic."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How to select.

    Attributes:
        k: how many.
        strategy: a name of :func:`.strategy_names`; "" for ``herding`` where the scores have
            embeddings, k is 10,000 at most and no ``order`` is given, or else ``top``.
        by: the column that is the score; "" for none, with a strategy that uses no scores.
        order: which scores are the best: ``highest`` or ``lowest``; "" for the column's own, see
            :data:`ORDER_OF`.
        subset: choose from so many random images alone (the paper's habit); 0 for all.
        seed: of random draws; an image is drawn by a hash of its id and this.
        at_most: take fewer where fewer than K are left.
        embedding: the column that likeness is measured in; "" for ``pretrained_embedding`` where
            the scores have it, or else ``embedding``.
        min_distance: pass over near-duplicates: images whose ``embedding`` has a smaller cosine
            distance (1 − cosine, 0 to 2) to a labeled image of the scores or an earlier pick.
        balance: spread the picks equally over the groups that a column of the scores names, as
            far as these have images: ``predicted`` (classes) or a column of classes, text, whole
            numbers or dates; "" for no groups.
        class_weight: ``balanced`` to let images of rare predicted classes weigh more, with a
            strategy that weighs; "" for no such weights.
    """

    k: int
    strategy: str = ""
    by: str = "loss"
    order: str = ""
    subset: int = 0
    seed: int = 0
    at_most: bool = False
    embedding: str = ""
    min_distance: float = 0.0
    balance: str = ""
    class_weight: str = ""

    def __post_init__(self) -> None:
        for name, number in (("k", self.k), ("seed", self.seed)):
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
                raise SettingsError(f"{name} = {number!r}: give a whole number")
        if self.k < 1:
            raise SettingsError(f"k = {self.k}: select at least 1 image")
        strategy = get_strategy(self.strategy or HERDING)
        if self.order not in ("", *ORDERS):
            raise SettingsError(f"order {self.order!r}: choose one of {', '.join(ORDERS)}")
        if not 0 <= self.min_distance <= 2:
            raise SettingsError(
                f"min_distance {self.min_distance}: give a cosine distance, from 0 to 2"
            )
        if self.embedding and EMBEDDING not in strategy.vectors and not self.min_distance:
            raise SettingsError(
                f"embedding {self.embedding!r}: {self.strategy} measures no likeness; leave it out"
            )
        if not self.by and strategy.uses_scores:
            raise SettingsError(f"by '': {self.strategy} needs a column of scores, such as loss")
        if self.by == "id":
            raise SettingsError(f"by {self.by!r}: select by a column of numbers, such as loss")
        self._check_class_weight()
        if self.subset < 0 or not float(self.subset).is_integer():
            raise SettingsError(f"subset {self.subset}: give a number of images")

    def _check_class_weight(self) -> None:
        if self.class_weight not in ("", BALANCED):
            raise SettingsError(f"class_weight {self.class_weight!r}: choose {BALANCED}")
        if self.class_weight and not get_strategy(self.strategy or HERDING).class_weighted:
            able = [name for name in strategy_names() if get_strategy(name).class_weighted]
            raise SettingsError(
                f"class_weight {self.class_weight!r}: {self.strategy} weighs no classes; choose "
                f"{' or '.join(able)}, or leave it out"
            )
        if self.class_weight and self.balance == PREDICTED:
            raise SettingsError(
                f"class_weight {self.class_weight!r} with balance {PREDICTED!r}: picks of each "
                "class are equally many already; leave one of the two out"
            )

    def refuse_unused(self) -> None:
        """Raise ``SettingsError`` for a column or an order that a user gave and nothing reads.

        Apart from that, a column that decides nothing is the score beside the picks.
        """
        if get_strategy(self.strategy or HERDING).uses_scores:
            return
        if self.by not in ("", SelectionSettings.by) or self.order:
            given = f"order {self.order!r}" if self.order else f"by {self.by!r}"
            raise SettingsError(f"{given}: {self.strategy} chooses by no scores; leave it out")

    def resolved(self, columns: Collection[str]) -> SelectionSettings:
        """Decide the strategy where none is given, for scores of these columns.

        The K highest scores are often of images that resemble each other, or that show nothing:
        herding teaches more in nearly all pools that were tried (``benchmarks/RESULTS.md``).
        """
        if self.strategy:
            return self
        able = not {EMBEDDING, PRETRAINED_EMBEDDING}.isdisjoint(columns)
        able = able and self.k <= COMPARED_MOST and not self.order  # which asks for an end
        herds = able or self.embedding or self.class_weight
        return replace(self, strategy=HERDING if herds else TOP)

    def assumption(self, made: Selection) -> str:
        """Say why the K highest were taken where no strategy was given; "" where none were."""
        if self.strategy or self.order or made.settings.strategy != TOP:
            return ""
        why = (
            f"picks of more than {COMPARED_MOST:,} are compared only if strategy {HERDING} is given"
            if self.k > COMPARED_MOST
            else "the scores have no embeddings to compare images by"
        )
        return f"{why}: these are the {made.settings.direction}, however alike"

    @property
    def direction(self) -> str:
        """``highest`` or ``lowest``, whichever scores are the best; "" where nothing says it."""
        return self.order or ORDER_OF.get(self.by, "")

    @property
    def group_column(self) -> str:
        """The column to balance by; "" where there are no groups."""
        return PREDICTION if self.balance == PREDICTED else self.balance

    @property
    def how(self) -> str:
        """What decides, in words: ``by lowest confidence``."""
        return get_strategy(self.strategy).how(self.direction, self.by)


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
        unspread: candidates left out because no distance to them can be measured.
        spread_by: the column that likeness was measured in; "" where none was.
        reasons: why each was chosen, in a few words without a comma.
        labeled: labeled images that the choice took into account.
        candidates: rows that the strategy chose from: ``eligible``, or its first pass's.
        distinct: embeddings among those of the candidates; 0 where none was read.
        duplicates: near-duplicates passed over.
        groups: of each group picks were balanced over, how many were picked, and of how many.
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
    reasons: Sequence[str] = ()
    labeled: int = 0
    candidates: int = 0
    distinct: int = 0
    duplicates: int = 0
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def table(self) -> pa.Table:
        """Columns ``id``, ``score``, ``rank`` (from 1) and ``reason``.

        Metadata say what they are ranked by.
        """
        columns = {
            "id": pa.array(self.ids, pa.string()),
            "score": self.scores,
            "rank": pa.array(range(1, len(self) + 1), pa.int64()),
            "reason": pa.array(self.reasons or [""] * len(self), pa.string()),
        }
        table = pa.table(columns)
        said = {"strategy": self.settings.strategy, "by": self.settings.by}
        return table.replace_schema_metadata({**said, "order": self.settings.direction})

    def unusable(self) -> list[str]:
        """How many images could not be chosen for what their scores are, in words."""
        counts = {
            "without a finite score": self.unscored,
            "with a NaN, infinite or extreme embedding left out": self.unspread,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]

    def among(self) -> str:
        """Say which part of a large pool was compared; "" where that is all of it."""
        compared = get_strategy(self.settings.strategy).vectors and self.spread_by
        if not compared or self.candidates + self.unspread >= self.eligible:
            return ""
        return f"comparing {self.candidates:,} of them"

    def collapse(self) -> str:
        """Warn where most of the images compared have the embeddings of others; else ""."""
        if not self.distinct or 2 * self.distinct >= self.candidates:
            return ""
        return (
            f"the {self.candidates:,} images compared have only "
            f"{counted(self.distinct, f'distinct {self.spread_by}')}: unless most are copies, the "
            "network gives different images the same features, and likeness says nothing; train it "
            "again (a lower learning rate or trained weights may help), or choose by strategy "
            "random"
        )

    def with_class_names(self, classes: Sequence[str]) -> Selection:
        """Name the groups of classes predicted, which scores hold as numbers of ``classes``."""
        if self.settings.balance != PREDICTED or not classes:
            return self
        named = {
            class_name(classes, int(group)) if group.isdigit() else group: shares
            for group, shares in self.groups.items()
        }
        return replace(self, groups=named)

    def remarks(self) -> list[str]:
        """Say in words how near-duplicates and groups were dealt with."""
        settings, lines = self.settings, list[str]()
        if settings.min_distance:
            limit = f"closer than {settings.min_distance:.3g} in {self.spread_by}"
            lines.append(f"{counted(self.duplicates, 'near-duplicate')} passed over ({limit})")
        if settings.class_weight:
            lines.append("rare predicted classes weigh more")
        if settings.balance:
            lines.append(f"balanced by {settings.balance}: {_shares(self.groups)}")
        return lines


def _shares(groups: Mapping[str, tuple[int, int]]) -> str:
    """Say how many of each group were picked; of many groups, in a summary."""
    if len(groups) <= _GROUPS_SHOWN:
        return "; ".join(
            f"{picked} of {size} in {name if name == NO_GROUP else repr(name)}"
            for name, (picked, size) in groups.items()
        )
    counts = sorted(picked for picked, _ in groups.values())
    few = counted(counts.count(0), "group has", "groups have")
    none = f" ({few} none)" if not counts[0] else ""
    return f"{counts[0]} to {counts[-1]} of each of {len(groups):,} groups{none}"
