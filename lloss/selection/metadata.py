"""A table about the images of a pool: the camera, site or day of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lloss.annotations import Problems
from lloss.data.id_matching import Matches
from lloss.errors import SettingsError
from lloss.scores.joined_scores import JoinedScores
from lloss.scores.score_source import ScoreSource, ids_of
from lloss.selection.selection import PREDICTED, SelectionSettings
from lloss.text.counts import part
from lloss.text.csv_table import Table

_Row = tuple[str, str | None]


def joined(
    source: ScoreSource,
    settings: SelectionSettings,
    table: Path | Mapping[str, object] | None,
    problems: Problems | None = None,
) -> ScoreSource:
    """Return scores with the column to balance by, which a user's table may have.

    Args:
        source: the scores.
        settings: whose ``balance`` names the column.
        table: of :func:`joined_with`, or groups by the images' ids; None where the scores have
            the column.
        problems: gets notes.

    Raises:
        SettingsError: no table is needed, or none has the column; see :func:`joined_with`.
    """
    balance, column = settings.balance, settings.group_column
    if table is None:
        has = source.columns()
        if column and has and column not in has:
            remedy = (
                "only classifiers predict a class"
                if balance == PREDICTED
                else "give a table that has it (--metadata TABLE)"
            )
            raise SettingsError(
                f"balance {balance!r}: the scores have no column {column!r} (they have "
                f"{', '.join(has)}); {remedy}"
            )
        return source
    if not balance or balance == PREDICTED:
        given = f"balance {balance!r}" if balance else "no column to balance by"
        raise SettingsError(f"metadata with {given}: name a column of the table in balance")
    if isinstance(table, Mapping):
        groups = {str(id): str(value) for id, value in table.items() if _is_group(value)}
        if table and not groups:
            raise SettingsError(f"metadata: all {len(table)} values are empty; give groups")
        if not any(id in groups for id in ids_of(source)):
            raise SettingsError(
                f"metadata: none of its {len(groups)} ids is in the scores; give groups by the "
                "images' ids"
            )
        return JoinedScores(source, column, groups)
    return joined_with(source, table, column, problems)


def _is_group(value: object) -> bool:
    """Whether a value names a group: None, "" and NaN do not."""
    return value is not None and value != "" and value == value


def joined_with(
    source: ScoreSource, path: Path, column: str, problems: Problems | None = None
) -> JoinedScores:
    """Join a column of a user's table to scores, as text.

    Args:
        source: the scores.
        path: CSV with a header, or Parquet, with a column ``id``: ids, or names that mean one as
            in :mod:`lloss.data.id_matching`.
        column: the table's column to join.
        problems: gets notes of rows and images that found no match.

    Raises:
        SettingsError: the table cannot be read, lacks a column, gives an image two values, or
            matches no image.
    """
    named = _values_by_name(path, column)
    values = {id: named.pop(id) for id in ids_of(source) if id in named}
    lost, rows = 0, len(values) + len(named)
    if named:
        matches = Matches(lambda: ids_of(source), named)
        for name, value in named.items():
            found = matches.of(name)
            if len(found) > 1:
                raise SettingsError(f"{path}: {name!r} {matches.why(name)}")
            if found and values.setdefault(found[0], value) != value:
                raise SettingsError(
                    f"{path}: gives {found[0]!r} the {column} {values[found[0]]!r} and {value!r}; "
                    "leave one out"
                )
            lost += not found
    if not values:
        example = next(iter(named), None)
        hint = f"{example!r} {matches.why(example)}" if example is not None else "it has no rows"
        raise SettingsError(f"{path}: matches no image of the scores: {hint}")
    if lost and problems is not None:
        problems.note(f"{path}: {part(lost, rows, 'rows', 'match')} no image of the scores")
    return JoinedScores(source, column, values)


def check_table(path: Path, column: str) -> None:
    """Raise ``SettingsError`` where :func:`joined_with` could not read a column of a table."""
    _values_by_name(path, column)


def _values_by_name(path: Path, column: str) -> dict[str, str]:
    values: dict[str, str] = {}
    read = _parquet_rows if path.suffix == ".parquet" else _csv_rows
    try:
        for name, value in read(path, column):
            if value is not None and values.setdefault(name, value) != value:
                raise SettingsError(
                    f"{path}: gives {name!r} the {column} {values[name]!r} and {value!r}; leave "
                    "one out"
                )
    except (OSError, pa.ArrowException) as error:
        raise SettingsError(f"{path}: cannot be read as a table ({error})") from error
    return values


def _csv_rows(path: Path, column: str) -> Iterator[_Row]:
    with path.open("rb") as file:
        table = Table(file, str(path), SettingsError)
        id, place = table.needed("id", column.casefold())
        for _, fields in table:
            yield fields[id].strip(), fields[place].strip() or None


def _parquet_rows(path: Path, column: str) -> Iterable[_Row]:
    has = pq.read_schema(path).names
    if missing := [name for name in ("id", column) if name not in has]:
        raise SettingsError(f"{path}: has no column {missing[0]!r} (it has {', '.join(has)})")
    table = pq.read_table(path, columns=["id", column])
    try:
        names, values = (table[name].cast(pa.string()) for name in ("id", column))
    except pa.ArrowException as error:
        raise SettingsError(f"{path}: {column!r} holds no text or numbers ({error})") from error
    return zip(names.to_pylist(), values.to_pylist(), strict=True)
