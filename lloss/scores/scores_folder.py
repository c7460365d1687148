"""The scores table: a folder of Parquet parts, on this machine or in an object store.

``part-00000.parquet`` … hold a row per image (``id`` and the graph's outputs),
``skipped.parquet`` the images that could not be read (``id``, ``reason``), and ``run.json`` what
was scored by what. A part holds a fixed range of the pool's items and appears whole or not at all,
its skipped images with it, so that a run that was interrupted scores the missing parts alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lloss.errors import ScoresError
from lloss.pools.pool import first_duplicate
from lloss.scores.folder_files import LocalFiles, folder_files
from lloss.scores.part_file import check_columns, write_part
from lloss.scores.shard_spec import Shard
from lloss.text.counts import counted

RUN = "run.json"
SKIPPED = "skipped.parquet"

POOL_IDS = "pool_ids_sha256"
"""In ``run.json`` of a shard of a pool without a fingerprint: a digest of the pool's ids."""
_NAMED = re.compile(r"part-(\d{5,})\.parquet", re.ASCII).fullmatch
_SKIPPED_KEY = b"lloss.skipped"
_SKIPPED_SCHEMA = pa.schema([("id", pa.string()), ("reason", pa.string())])

Skipped = Sequence[tuple[str, str]]
"""Ids and reasons."""


def scores_table(ids: Sequence[str], columns: Mapping[str, NDArray[np.float32]]) -> pa.Table:
    """Ids and outputs as a table: float32 columns, vectors as fixed-size lists."""
    arrays: dict[str, pa.Array] = {"id": pa.array(ids, pa.string())}
    for name, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values, np.float32).ravel(), pa.float32())
        width = int(np.prod(values.shape[1:]))
        arrays[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.table(arrays)


class ScoresFolder:
    """A scores folder, to read (it is a :class:`.ScoreSource`) or to fill."""

    def __init__(self, path: str | Path) -> None:
        self.files = folder_files(path)

    def __str__(self) -> str:
        return self.files.uri

    @property
    def local(self) -> Path | None:
        """The folder on this machine; None where it is behind a URL."""
        return self.files.path if isinstance(self.files, LocalFiles) else None

    @property
    def path(self) -> Path:
        """The folder on this machine; ScoresError where it is behind a URL."""
        if self.local is None:
            raise ScoresError(f"{self}: give a scores folder of this machine here")
        return self.local

    def run(self) -> dict[str, Any] | None:
        """Read ``run.json``; None where it does not exist, ScoresError where it is damaged."""
        text = self.files.read(RUN)
        if text is None:
            return None
        try:
            content: dict[str, Any] = json.loads(text)
            if not isinstance(content, dict):
                raise ValueError("not an object")
            return content
        except ValueError as error:
            raise ScoresError(
                f"{self.files.where(RUN)}: is damaged; score the pool again elsewhere"
            ) from error

    def write_run(self, content: Mapping[str, Any], new: bool = False) -> None:
        """Write ``run.json``; with ``new``, see :meth:`.FolderFiles.writing`."""
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        with self.files.writing(RUN, new) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")

    def shard(self) -> Shard:
        """The shard of its pool that the folder holds."""
        return Shard.parse(str((self.run() or {}).get("shard", "1/1")))

    def opened(self) -> ScoresFolder:
        """Return itself if it holds the scores of a finished run; otherwise raise ScoresError."""
        run = self.run()
        if run is None:
            raise ScoresError(
                f"{self}: no scores here; make them with lloss score MODEL POOL -o {self}"
            )
        parts = len(self.parts())
        if run.get("state") != "complete":
            raise ScoresError(
                f"{self}: the scoring run is not finished ({counted(parts, 'part')} so far); "
                "run the same lloss score again to continue"
            )
        if self.shard().count > 1:
            raise ScoresError(
                f"{self}: holds shard {self.shard()} of a pool alone; "
                "merge all of them first: lloss merge SHARDS… -o SCORES"
            )
        if {"scored", "skipped", "part_size"} <= run.keys():
            wanted = -(-(run["scored"] + run["skipped"]) // run["part_size"])
            if parts < wanted:
                raise ScoresError(
                    f"{self}: has {parts} of its {wanted} parts; "
                    "score the pool again into an empty folder"
                )
        return self

    def part_numbers(self) -> list[int]:
        """The numbers in the whole pool of the existing parts; some between may be missing."""
        return sorted(int(found[1]) for name in self.files.names() if (found := _NAMED(name)))

    def parts(self) -> list[str]:
        """The existing parts' names, in order; ScoresError where one is missing between others."""
        numbers = self.part_numbers()
        for wanted, number in zip(self.shard().parts(), numbers):
            if number != wanted:
                raise ScoresError(
                    f"{self}: {part_name(wanted)} is missing, but {part_name(number)} exists; "
                    "score the pool again into an empty folder"
                )
        return [part_name(number) for number in numbers]

    def missing_parts(self, done: Iterable[int]) -> Iterator[int]:
        """The numbers in the whole pool of the parts to score besides these, without end."""
        finished = set(done)
        return (number for number in self.shard().parts() if number not in finished)

    def write_part(self, number: int, table: pa.Table, skipped: Skipped) -> None:
        """Write a part and, in its metadata, the images it would have held."""
        note = json.dumps([list(row) for row in skipped], ensure_ascii=False).encode()
        with self.files.writing(part_name(number)) as aside:
            write_part(table.replace_schema_metadata({_SKIPPED_KEY: note}), aside)

    @contextmanager
    def _opened_part(self, name: str) -> Iterator[pq.ParquetFile]:
        """Open a part; ScoresError where it, or what is read of it then, is damaged."""
        with (
            self.files.errors(name),
            self.files.opened(name) as source,
            pq.ParquetFile(source, page_checksum_verification=True) as file,
        ):
            yield file

    def part_ids(self, number: int) -> tuple[list[str], list[tuple[str, str]]]:
        """The ids of a part's rows, and its skipped images."""
        with self._opened_part(part_name(number)) as file:
            return file.read(["id"])["id"].to_pylist(), _skipped_of(file)

    def part_counts(self, number: int) -> tuple[int, int]:
        """How many images a part holds, and how many it skipped; its footer is read alone."""
        with self._opened_part(part_name(number)) as file:
            return file.metadata.num_rows, len(_skipped_of(file))

    def ids(self) -> Iterator[str]:
        """The ids of all images, scored or skipped."""
        for number in self.part_numbers():
            rows, failed = self.part_ids(number)
            yield from rows
            yield from (id for id, _ in failed)

    def scan(
        self, columns: Sequence[str], ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read columns of all rows in their order, or of the rows of some ids.

        Parts whose statistics exclude the ids are not read; ScoresError for a damaged one.
        """
        parts = self.parts()
        if not parts:
            return
        with self.files.errors():
            dataset, options = self.files.scanner(parts)
            check_columns(str(self), dataset.schema, columns)
            rows = None if ids is None else ds.field("id").isin(pa.array(ids, pa.string()))
            yield from dataset.scanner(
                columns=list(columns), filter=rows, fragment_scan_options=options
            ).to_batches()

    def columns(self) -> Sequence[str]:
        """Name the columns of its parts; none without a part."""
        parts = self.parts()
        if not parts:
            return ()
        with self._opened_part(parts[0]) as file:
            names: list[str] = file.schema_arrow.names
            return names

    def column(self, name: str, without: Set[str] = frozenset()) -> NDArray[np.float32]:
        """One scalar column of all rows, or of all but those of some ids, float32 [N]."""
        parts = [np.empty(0, np.float32)]
        for batch in self.scan(["id", name] if without else [name]):
            values = batch[name].to_numpy(zero_copy_only=False)
            if without:
                values = values[[id not in without for id in batch["id"].to_pylist()]]
            parts.append(values)
        return np.concatenate(parts)

    def skipped(self) -> list[tuple[str, str]]:
        """Ids and reasons of the images that could not be read."""
        with self._opened_part(SKIPPED) as file:
            table = file.read()
            return list(zip(table["id"].to_pylist(), table["reason"].to_pylist()))

    def write_skipped(self) -> None:
        """Collect the skipped images of all parts in ``skipped.parquet``."""
        rows = []
        for part in self.parts():
            with self._opened_part(part) as file:
                rows += _skipped_of(file)
        columns = [[id for id, _ in rows], [reason for _, reason in rows]]
        with self.files.writing(SKIPPED) as aside:
            table = pa.table(columns, schema=_SKIPPED_SCHEMA)
            pq.write_table(table, aside, compression="zstd", write_page_checksum=True)

    def check_whole(self) -> None:
        """Raise ScoresError where the parts' footers contradict the finished run's counts."""
        self.parts()  # raises where one is missing between others
        run, counts = self.run() or {}, [self.part_counts(n) for n in self.part_numbers()]
        rows, failed = (sum(several) for several in zip((0, 0), *counts))
        if (rows, failed) != (run.get("scored"), run.get("skipped")):
            raise ScoresError(
                f"{self}: its parts hold {rows} images and {failed} skipped ones, run.json "
                f"says {run.get('scored')} and {run.get('skipped')}: a part is missing; "
                "score that folder again from the start"
            )

    def check_unique(self) -> None:
        """Raise ScoresError where an id occurs twice."""
        duplicate = first_duplicate(self.ids)
        if duplicate is not None:
            raise ScoresError(
                f"{self}: the id {duplicate!r} comes twice in the pool; ids are unique in "
                "a pool: rename one of the two images and score again"
            )


def part_name(number: int) -> str:
    """The file's name of a part, by its number in the whole pool."""
    return f"part-{number:05d}.parquet"


def _skipped_of(file: pq.ParquetFile) -> list[tuple[str, str]]:
    note = (file.schema_arrow.metadata or {}).get(_SKIPPED_KEY, b"[]")
    return [(id, reason) for id, reason in json.loads(note)]
