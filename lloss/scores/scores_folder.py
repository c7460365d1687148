"""The scores table on disk: a folder of Parquet parts.

``part-00000.parquet`` … hold a row per image (``id`` and the graph's outputs),
``skipped.parquet`` the images that could not be read (``id``, ``reason``), and ``run.json`` what
was scored by what. A part holds a fixed range of the pool's items and appears whole or not at all,
its skipped images with it, so that an interrupted run resumes at the first missing part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lloss.errors import ScoresError
from lloss.files import atomic_write, write_json
from lloss.pools.duplicate_ids import first_duplicate
from lloss.scores.part_file import check_columns, opened_part, part_errors, write_part
from lloss.scores.shard_spec import Shard

RUN = "run.json"
SKIPPED = "skipped.parquet"

POOL_IDS = "pool_ids_sha256"
"""In ``run.json`` of a shard of a pool without a fingerprint: a digest of the pool's ids."""
_PART = "part-{:05d}.parquet"
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
        self.path = Path(path)

    def run(self) -> dict[str, Any] | None:
        """Read ``run.json``; None where it does not exist, ScoresError where it is damaged."""
        path = self.path / RUN
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("not an object")
            return content
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise ScoresError(
                f"{self.path}: is not a folder; scores are a folder that lloss score makes"
            ) from error
        except (OSError, ValueError) as error:
            raise ScoresError(f"{path}: is damaged; score the pool again elsewhere") from error

    def write_run(self, content: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        write_json(self.path / RUN, content)

    def shard(self) -> Shard:
        """The shard of its pool that the folder holds."""
        return Shard.parse(str((self.run() or {}).get("shard", "1/1")))

    def opened(self) -> ScoresFolder:
        """Return itself if it holds the scores of a finished run; otherwise raise ScoresError."""
        run = self.run()
        if run is None:
            raise ScoresError(
                f"{self.path}: no scores here; make them with lloss score MODEL POOL -o {self.path}"
            )
        parts = len(self.parts())
        if run.get("state") != "complete":
            raise ScoresError(
                f"{self.path}: the scoring run is not finished ({parts} parts so far); "
                "run the same lloss score again to continue"
            )
        if self.shard().count > 1:
            raise ScoresError(
                f"{self.path}: holds shard {self.shard()} of a pool alone; "
                "merge all of them first: lloss merge SHARDS… -o SCORES"
            )
        if {"scored", "skipped", "part_size"} <= run.keys():
            wanted = -(-(run["scored"] + run["skipped"]) // run["part_size"])
            if parts < wanted:
                raise ScoresError(
                    f"{self.path}: has {parts} of its {wanted} parts; "
                    "score the pool again into an empty folder"
                )
        return self

    def parts(self) -> list[Path]:
        """The existing parts, in order; ScoresError where one is missing between others."""
        found = sorted(
            self.path.glob("part-*.parquet"), key=lambda path: (len(path.name), path.name)
        )
        for number, part in zip(self.shard().parts(), found):
            if part.name != _PART.format(number):
                raise ScoresError(
                    f"{self.path}: {_PART.format(number)} is missing, but {part.name} exists; "
                    "score the pool again into an empty folder"
                )
        return found

    def part_numbers(self) -> list[int]:
        """The numbers in the whole pool of the existing parts."""
        return [number for number, _ in zip(self.shard().parts(), self.parts())]

    def missing_parts(self) -> Iterator[int]:
        """The numbers in the whole pool of the parts to score, from the first missing one on."""
        return self.shard().parts(len(self.parts()))

    def part_path(self, number: int) -> Path:
        """The path of a part, whether it exists or not."""
        return self.path / _PART.format(number)

    def write_part(self, number: int, table: pa.Table, skipped: Skipped) -> None:
        """Write a part and, in its metadata, the images it would have held."""
        note = json.dumps([list(row) for row in skipped], ensure_ascii=False).encode()
        with atomic_write(self.part_path(number)) as aside:
            write_part(table.replace_schema_metadata({_SKIPPED_KEY: note}), aside)

    def part_ids(self, number: int) -> tuple[list[str], list[tuple[str, str]]]:
        """The ids of a part's rows, and its skipped images."""
        path = self.part_path(number)
        with opened_part(path) as file, part_errors(path):
            return file.read(["id"])["id"].to_pylist(), _skipped_of(file)

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
        with part_errors(self.path):
            dataset = ds.dataset(list(map(str, parts)), format="parquet")
            check_columns(self.path, dataset.schema, columns)
            # Buffering ahead is for stores; of files it only copies.
            local = ds.ParquetFragmentScanOptions(pre_buffer=False, page_checksum_verification=True)
            rows = None if ids is None else ds.field("id").isin(pa.array(ids, pa.string()))
            yield from dataset.scanner(
                columns=list(columns), filter=rows, fragment_scan_options=local
            ).to_batches()

    def columns(self) -> Sequence[str]:
        """Name the columns of its parts; none without a part."""
        parts = self.parts()
        if not parts:
            return ()
        with opened_part(parts[0]) as file, part_errors(parts[0]):
            names: list[str] = file.schema_arrow.names
            return names

    def column(self, name: str) -> NDArray[np.float32]:
        """One scalar column of all rows, float32 [N]."""
        parts = [batch[name].to_numpy(zero_copy_only=False) for batch in self.scan([name])]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def skipped(self) -> list[tuple[str, str]]:
        """Ids and reasons of the images that could not be read."""
        path = self.path / SKIPPED
        with part_errors(path):
            table = pq.read_table(path, page_checksum_verification=True)
            return list(zip(table["id"].to_pylist(), table["reason"].to_pylist()))

    def write_skipped(self) -> None:
        """Collect the skipped images of all parts in ``skipped.parquet``."""
        rows = [row for number in self.part_numbers() for row in self.part_ids(number)[1]]
        columns = [[id for id, _ in rows], [reason for _, reason in rows]]
        with atomic_write(self.path / SKIPPED) as aside:
            table = pa.table(columns, schema=_SKIPPED_SCHEMA)
            pq.write_table(table, aside, compression="zstd", write_page_checksum=True)

    def check_whole(self) -> None:
        """Raise ScoresError where the parts' footers contradict the finished run's counts."""
        run = self.run() or {}
        rows = failed = 0
        for part in self.parts():
            with opened_part(part) as file, part_errors(part):
                rows += file.metadata.num_rows
                failed += len(_skipped_of(file))
        if (rows, failed) != (run.get("scored"), run.get("skipped")):
            raise ScoresError(
                f"{self.path}: its parts hold {rows} images and {failed} skipped ones, run.json "
                f"says {run.get('scored')} and {run.get('skipped')}: a part is missing; "
                "score that folder again from the start"
            )

    def check_unique(self) -> None:
        """Raise ScoresError where an id occurs twice."""
        duplicate = first_duplicate(self.ids)
        if duplicate is not None:
            raise ScoresError(
                f"{self.path}: the id {duplicate!r} comes twice in the pool; ids are unique in "
                "a pool: rename one of the two images and score again"
            )


def _skipped_of(file: pq.ParquetFile) -> list[tuple[str, str]]:
    note = (file.schema_arrow.metadata or {}).get(_SKIPPED_KEY, b"[]")
    return [(id, reason) for id, reason in json.loads(note)]
