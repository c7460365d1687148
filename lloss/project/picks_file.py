"""The picks of a cycle: ``selected.csv``, of which some may be drawn at random to monitor."""

from __future__ import annotations

import csv
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


def monitoring_bound(cycles: Path, seed: int) -> int:
    """Return the largest number by which complete cycles drew images to monitor; -1 for none.

    Every cycle draws the unlabeled images of the smallest numbers (:func:`.draw_hash` by ``seed``).
    So images up to the bound are a random sample of the pool, however they came to be labeled.
    """
    bound = -1
    for summary in cycles.glob(f"*/{SUMMARY}"):
        if (summary.parent / SELECTED).exists():
            for id in read_picks(summary.parent).random:
                bound = max(bound, draw_hash(id, seed))
    return bound
