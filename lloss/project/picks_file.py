"""The picks of a cycle: ``selected.csv``, of which some may be drawn at random to monitor."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lloss.errors import ProjectError
from lloss.project.summary import SUMMARY
from lloss.selection import Selection
from lloss.selection.hashing import draw_hash

SELECTED = "selected.csv"

RANDOM = "drawn at random to monitor"
"""The reason of picks that the setting ``monitor`` asks for."""


@dataclass(frozen=True)
class PickedIds:
    """The ids of a cycle's picks."""

    chosen: list[str]
    random: list[str]  # drawn to monitor


def read_picks(folder: Path) -> PickedIds:
    """Read the picks of a cycle; ``ProjectError`` where the file is missing or damaged."""
    path = folder / SELECTED
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["id"], row.get("reason") == RANDOM) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise ProjectError(f"{path}: cannot be read: {error}") from error
    return PickedIds([id for id, drawn in rows if not drawn], [id for id, drawn in rows if drawn])


def with_random(chosen: Selection | None, random: Selection) -> Selection:
    """Append images drawn at random to a selection, marked in their reasons."""
    marked = replace(random, reasons=[RANDOM] * len(random))
    if chosen is None:
        return marked
    return replace(
        chosen,
        ids=[*chosen.ids, *random.ids],
        scores=np.concatenate([chosen.scores, random.scores]),
        reasons=[*(chosen.reasons or [""] * len(chosen)), *marked.reasons],
        excluded=random.excluded,
        eligible=max(chosen.eligible, random.eligible),
    )


@dataclass(frozen=True)
class Monitored:
    """What the images that the newest cycle drew to monitor make a random sample of.

    Every cycle draws the unlabeled images of the smallest numbers (:func:`.draw_hash`). So once
    they are labeled, all images up to the largest of these numbers are, however they came to be:
    those are a random sample of the pool as it was scored then. Where some of the drawn images have
    no label, that is so below the smallest of these alone.

    Attributes:
        bound: the largest number of the sample; -1 where it has none.
        note: on drawn images without a label; "" without any.
    """

    bound: int
    note: str

    @classmethod
    def of(cls, cycles: Path, labeled: Collection[str], seed: int) -> Monitored | None:
        """Read the newest draw of complete cycles; None where none drew images to monitor."""
        folders = sorted((each.parent for each in cycles.glob(f"*/{SUMMARY}")), key=_number)
        picked = ((each, read_picks(each).random) for each in reversed(folders) if _picks(each))
        folder, drawn = next((each for each in picked if each[1]), (cycles, []))
        if not drawn:
            return None
        missing = [id for id in drawn if id not in labeled]
        if not missing:
            return cls(max(draw_hash(id, seed) for id in drawn), "")
        return cls(
            min(draw_hash(id, seed) for id in missing) - 1,
            f"{folder / SELECTED}: {len(missing)} of the {len(drawn)} images drawn at random to "
            f"monitor have no label ({missing[0]!r}, for example): only labeled images whose turn "
            "came before theirs are held out, since the others are no random sample; label them",
        )


def _number(folder: Path) -> tuple[int, str]:
    return len(folder.name), folder.name


def _picks(folder: Path) -> bool:
    return (folder / SELECTED).exists()
