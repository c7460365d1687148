"""What pages and Label Studio show of a scores folder of any size, read once and kept."""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from lloss.serve.daemon.services.scores_cache import ScoresCache

from lloss.scores.part_file import part_errors
from lloss.scores.scores_folder import ScoresFolder
from lloss.statistics.charts import Spread

BEST = 4096
"""Images of the largest predicted loss that are kept: those that pages show."""

_OTHERS = 16_384
"""Further images that are kept, the latest that were asked for."""

_OPTIONAL = ("prediction", "confidence")


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """The row of an image in its scores.

    Attributes:
        loss: predicted; NaN without a score.
        prediction: index of the predicted class; -1 without one.
        confidence: of the prediction, 0 to 1; NaN without one.
    """

    loss: float = math.nan
    prediction: int = -1
    confidence: float = math.nan


class ScoreSummary:
    """A complete scores folder.

    Attributes:
        spread: the distribution of the predicted losses; None when no image has one.
    """

    def __init__(self, folder: ScoresFolder) -> None:
        """Read it; raises :class:`ScoresError` when it is damaged."""
        self._folder = folder
        self._lock = threading.Lock()
        self._images: OrderedDict[str, ScoredImage] = OrderedDict()
        losses = folder.column("loss")
        self.spread = Spread.of(losses)
        finite = losses[np.isfinite(losses)]
        if finite.size:
            place = max(finite.size - BEST, 0)
            least = float(np.partition(finite, place)[place])
            rows = self._rows(lambda batch: pc.greater_equal(batch["loss"], least))
            self._keep(dict(itertools.islice(rows, BEST)))

    def images(self, ids: Sequence[str]) -> dict[str, ScoredImage]:
        """Look images up; those without a score have a row of defaults.

        Raises:
            ScoresError: the folder is damaged or was removed.
        """
        with self._lock:
            known = {id: self._images[id] for id in ids if id in self._images}
            for id in known:
                self._images.move_to_end(id)
        missing = [id for id in ids if id not in known]
        if missing:
            wanted = pa.array(missing, pa.string())
            rows = self._rows(lambda batch: pc.is_in(batch["id"], value_set=wanted))
            known |= self._keep({**dict.fromkeys(missing, ScoredImage()), **dict(rows)})
        return known

    def _keep(self, images: dict[str, ScoredImage]) -> dict[str, ScoredImage]:
        with self._lock:
            self._images.update(images)
            while len(self._images) > BEST + _OTHERS:
                self._images.popitem(last=False)
        return images

    def _rows(
        self, wanted: Callable[[pa.RecordBatch], pa.Array]
    ) -> Iterator[tuple[str, ScoredImage]]:
        parts = self._folder.parts()
        if not parts:
            return
        with part_errors(parts[0]):
            has = pq.read_schema(parts[0]).names
        columns = ["id", "loss", *(name for name in _OPTIONAL if name in has)]
        for batch in self._folder.scan(columns):
            for row in batch.filter(wanted(batch)).to_pylist():
                loss, confidence = row["loss"], row.get("confidence")
                prediction = row.get("prediction")
                yield (
                    row["id"],
                    ScoredImage(
                        math.nan if loss is None else loss,
                        -1
                        if prediction is None or not math.isfinite(prediction)
                        else int(prediction),
                        math.nan if confidence is None else confidence,
                    ),
                )


score_summary = ScoresCache(ScoreSummary, 32).get
"""The summary of a complete folder, read on the first call; ScoresError if it is damaged."""
