"""What a page shows of a scores folder of any size, found once and kept."""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lloss.scores.part_file import readable
from lloss.scores.scores_folder import ScoresFolder
from lloss.statistics.charts import Spread

BEST = 4096
"""Images of the largest predicted loss whose guesses are kept: those that pages show."""

_OTHERS = 16_384
"""Guesses kept of images that were asked for and are not among the best."""


_Filter = Callable[[pa.RecordBatch], pa.Array]
"""Which rows of a batch are wanted."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a model takes an image for.

    Attributes:
        prediction: index of a class; -1 where the task has none.
        confidence: 0 to 1; NaN where the task has none.
    """

    prediction: int = -1
    confidence: float = math.nan


@dataclass
class Digest:
    """A scores folder at a glance.

    Attributes:
        folder: which; it is complete.
        spread: of the predicted losses; None where no image has one.
    """

    folder: ScoresFolder
    spread: Spread | None
    _guesses: OrderedDict[str, Guess] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, folder: ScoresFolder) -> Digest:
        """Read a folder.

        Raises:
            ScoresError: it is damaged.
        """
        losses = folder.column("loss")
        digest = cls(folder, Spread.of(losses))
        finite = losses[np.isfinite(losses)]
        if finite.size:
            place = max(finite.size - BEST, 0)
            least = float(np.partition(finite, place)[place])
            digest._learn(lambda rows: pc.greater_equal(rows["loss"], least), BEST)
        return digest

    def guesses(self, ids: Sequence[str]) -> dict[str, Guess]:
        """What the model takes these images for; nothing where the folder does not hold one.

        Raises:
            ScoresError: the folder is damaged or was removed.
        """
        with self._lock:
            known = {id: self._guesses[id] for id in ids if id in self._guesses}
            for id in known:
                self._guesses.move_to_end(id)
        missing = [id for id in ids if id not in known]
        if missing:
            asked = pa.array(missing, pa.string())
            known |= self._learn(lambda rows: pc.is_in(rows["id"], asked), len(missing), missing)
        return known

    def _learn(self, wanted: _Filter, most: int, asked: Sequence[str] = ()) -> dict[str, Guess]:
        """Keep the guesses of wanted rows, and of those asked for that there is nothing of them."""
        found = dict.fromkeys(asked, Guess())
        found.update(itertools.islice(self._rows(wanted), most))
        with self._lock:
            self._guesses.update(found)
            while len(self._guesses) > BEST + _OTHERS:
                self._guesses.popitem(last=False)
        return found

    def _rows(self, wanted: _Filter) -> Iterator[tuple[str, Guess]]:
        parts = self.folder.parts()
        if not parts:
            return
        with readable(parts[0]):
            has = pq.read_schema(parts[0]).names
        told = [name for name in ("prediction", "confidence") if name in has]
        if not told:
            return
        for batch in self.folder.scan(["id", "loss", *told]):
            for row in batch.filter(wanted(batch)).to_pylist():
                yield row["id"], _guess(row.get("prediction"), row.get("confidence"))


def _guess(prediction: float | None, confidence: float | None) -> Guess:
    known = prediction is not None and math.isfinite(prediction)
    return Guess(
        int(prediction) if known and prediction is not None else -1,
        math.nan if confidence is None else confidence,
    )
