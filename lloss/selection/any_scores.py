"""Select from scores in whatever form a program has them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.interchange

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ScoresError, SettingsError
from lloss.scores.score_source import ScoreSource, TableScores, ids_of
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection.exclusions import find_excluded, read_excluded, unmatched_note
from lloss.selection.metadata import joined
from lloss.selection.select import select as select_from_source
from lloss.selection.selection import Selection, SelectionSettings


def select(
    scores: Any,
    settings: SelectionSettings | None = None,
    exclude: Any = (),
    *,
    k: int | None = None,
    metadata: Path | str | Mapping[str, object] | None = None,
    **options: Any,
) -> Selection:
    """Choose the K images to label next: ``lloss.select(scores, k=100)``.

    Args:
        scores: of :meth:`lloss.Scorer.score`, a scores folder or its path, a table of Arrow, pandas
            or Polars, or another :class:`.ScoreSource`: the columns ``id``, that of ``by``, and
            ``embedding`` for ``diverse``.
        settings: how, instead of ``k`` and ``options``.
        exclude: never to select: ids, a :class:`.LabeledSet`, or a ``Path`` (or several) of files
            of labels or ids, as ``lloss select --exclude`` takes them.
        k: how many.
        metadata: groups to ``balance`` by, where the scores have no such column: CSV or Parquet
            with the columns ``id`` and that of ``balance``, or groups by id.
        options: the other fields of :class:`lloss.SelectionSettings`, such as ``by``.

    Warns:
        UserWarning: images to exclude are not in the scores; rows of ``metadata`` match no image;
            most embeddings are equal.

    Raises:
        SelectionError: fewer than K are left and ``at_most`` is off.
        ScoresError: the scores cannot be read or lack a column.
        SettingsError: the column holds no numbers, nothing says which end of it is the best, or the
            strategy does not choose by it.
    """
    if settings is None:
        if k is None:
            raise SettingsError("k: give the number of images to select, such as k=100")
        settings = SelectionSettings(k=k, **options)
    elif k is not None or options:
        raise SettingsError("settings: give these, or k and options, not both")
    settings.refuse_unused()
    source, problems = score_source(scores), Problems(skip=True)
    table = Path(metadata) if isinstance(metadata, str) else metadata
    with_groups = joined(source, settings, table, problems)
    excluded, given = _excluded(exclude, source, problems)
    selection = select_from_source(with_groups, settings, excluded)
    if len(excluded) > selection.excluded:
        unknown = sorted(excluded.difference(_ids(source)))
        problems.note(unmatched_note([repr(id) for id in unknown], len(given), "the scores"))
    problems.note(selection.collapse())
    for line in problems.lines():
        warnings.warn(line, stacklevel=2)
    return selection


def score_source(scores: Any) -> ScoreSource:
    """Return scores as a source; ScoresError for other objects."""
    if isinstance(scores, (str, Path)):
        return ScoresFolder(scores).opened()
    if isinstance(scores, ScoresFolder):
        return scores.opened()
    if hasattr(scores, "scan") and not hasattr(scores, "__dataframe__"):
        source: ScoreSource = scores
        return source
    if callable(getattr(scores, "table", None)):  # `Scores`
        return TableScores(scores.table())
    return TableScores(_with_text_ids(_table(scores)))


def _table(scores: Any) -> pa.Table:
    if isinstance(scores, pa.Table):
        return scores
    try:
        if isinstance(scores, pa.RecordBatch) or hasattr(scores, "__arrow_c_stream__"):
            return pa.table(scores)
        if hasattr(scores, "__dataframe__"):
            return pa.interchange.from_dataframe(scores)
    except (pa.ArrowException, TypeError, ValueError, RuntimeError) as error:
        raise ScoresError(f"a {type(scores).__name__} of scores: {error}") from error
    raise ScoresError(
        f"a {type(scores).__name__}: give the scores of a Scorer, a scores folder, or a table with "
        "the columns id and loss"
    )


def _with_text_ids(table: pa.Table) -> pa.Table:
    """Ids as text: tables that a program makes may number their rows."""
    if "id" not in table.schema.names:
        return table  # which a selection refuses by name
    kind = table.schema.field("id").type
    if pa.types.is_dictionary(kind) or pa.types.is_integer(kind) or pa.types.is_string_view(kind):
        place = table.schema.names.index("id")
        return table.set_column(place, "id", table["id"].cast(pa.large_string()))
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ScoresError(f"the column 'id' holds {kind}: give ids as text")
    return table


def _excluded(
    exclude: Any, source: ScoreSource, problems: Problems
) -> tuple[set[str], Collection[str]]:
    """Return the ids to exclude, and those of them that were given as ids."""
    if isinstance(exclude, LabeledSet):
        exclude = [item.id for item in exclude.items]
    if isinstance(exclude, str):
        raise SettingsError(f"exclude = {exclude!r}: give ids in a list, or a Path of a file")
    many: Iterable[Any] = [exclude] if isinstance(exclude, Path) else exclude
    ids, files = set[str](), list[Path]()
    for one in many:
        if isinstance(one, Path):
            files.append(one)
        else:
            ids.add(str(one))
    if not files:
        return ids, ids
    named = read_excluded(files, problems)
    return ids | find_excluded(named, lambda: _ids(source), "the scores", problems), ids


def _ids(source: ScoreSource) -> Iterator[str]:
    """All ids, of images that could not be scored too where the source knows them."""
    return source.ids() if isinstance(source, ScoresFolder) else ids_of(source)
