"""Scores as a job or the command line leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.scores.scores_folder import ScoresFolder, Skipped, scores_table


def write_scores(
    path: Path,
    ids: Sequence[str],
    columns: Mapping[str, NDArray[np.float32]],
    skipped: Skipped = (),
    part: int = 10_000,
    **run: Any,
) -> ScoresFolder:
    """Write a complete folder.

    Args:
        path: of the folder, created if missing.
        ids: of the rows.
        columns: the model's outputs.
        skipped: ids and reasons; they go with the first part.
        part: rows of a part.
        run: what ``run.json`` says besides, or instead.
    """
    path.mkdir(parents=True, exist_ok=True)
    folder = ScoresFolder(path)
    for number, start in enumerate(range(0, max(len(ids), 1), part)):
        rows = slice(start, start + part)
        table = scores_table(ids[rows], {name: column[rows] for name, column in columns.items()})
        folder.write_part(number, table, () if number else skipped)
    folder.write_skipped()
    sizes = {"scored": len(ids), "skipped": len(skipped), "part_size": part}
    folder.write_run({"state": "complete", **sizes, **run})
    return folder
