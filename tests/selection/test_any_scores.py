"""Scores in any form: the same selection."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import lloss
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ScoresError, SelectionError, SettingsError
from lloss.pools import Item
from lloss.scores.score_source import TableScores
from lloss.scores.scores_folder import ScoresFolder

LOSS = np.array([0.5, 3.0, np.nan, 2.0, 1.0], np.float32)
IDS = ["a", "b", "c", "d", "e"]


class _Frame:
    """A frame with the interchange protocol alone, as older Polars has."""

    def __init__(self, table: pa.Table) -> None:
        self.__dataframe__ = table.__dataframe__


class _Stream:
    """A frame with Arrow's C stream alone, as newer Polars has."""

    def __init__(self, table: pa.Table) -> None:
        self.__arrow_c_stream__ = table.__arrow_c_stream__


def _scores() -> lloss.Scores:
    embedding = np.eye(5, dtype=np.float32)
    return lloss.Scores(IDS, {"loss": LOSS, "margin": -LOSS, "embedding": embedding})


def _folder(path: Path) -> ScoresFolder:
    folder = ScoresFolder(path)
    path.mkdir()
    folder.write_part(0, _scores().table(), [])
    folder.write_run({"state": "complete"})
    return folder


def _forms(path: Path) -> dict[str, Any]:
    table = _scores().table().drop_columns(["embedding"])
    folder = _folder(path)
    return {
        "scores": _scores(), "table": table, "source": TableScores(table), "folder": folder,
        "path": path, "text": str(path), "batch": table.combine_chunks().to_batches()[0],
        "pandas": table.to_pandas(), "frame": _Frame(table), "stream": _Stream(table),
        "large": table.set_column(0, "id", table["id"].cast(pa.large_string())),
        "categories": table.to_pandas().astype({"id": "category"}),
    }  # fmt: skip


def test_scores_in_any_form_give_the_same_selection(tmp_path: Path) -> None:
    for name, form in _forms(tmp_path / "scores").items():
        found = lloss.select(form, k=2, exclude=["b"])
        assert (found.ids, found.excluded, found.unscored) == (["d", "e"], 1, 1), name
        assert lloss.select(form, k=2, by="margin").ids == ["b", "d"], name


def test_settings_and_vectors_pass_through() -> None:
    settings = lloss.SelectionSettings(k=1, strategy="diverse")
    assert lloss.select(_scores(), settings).ids == ["b"]
    frame = _scores().table().to_pandas()  # a column of arrays
    assert len(lloss.select(frame, k=3, strategy="diverse").ids) == 3


def test_what_chooses_by_no_scores_takes_the_default_column_or_none() -> None:
    for by in ("loss", ""):
        assert len(lloss.select(_scores(), k=2, strategy="random", by=by)) == 2
        assert len(lloss.select(_scores(), k=2, strategy="coverage", by=by)) == 2


def test_row_numbers_are_ids() -> None:
    frame = pd.DataFrame({"id": range(5), "loss": LOSS})
    assert lloss.select(frame, k=2, exclude=[1]).ids == ["3", "4"]


def test_labels_are_excluded(tmp_path: Path) -> None:
    labeled = LabeledSet([Item("b", bytes), Item("x", bytes)], ["cat", "dog"], "labels")
    assert lloss.select(_scores(), k=1, exclude=labeled).ids == ["d"]
    file = tmp_path / "labels.csv"
    file.write_text("id,label\nb,cat\nd,dog\n")
    assert lloss.select(_scores(), k=1, exclude=file).ids == ["e"]
    assert lloss.select(_scores(), k=1, exclude=[file, "e"]).ids == ["a"]


def test_what_is_named_and_not_there_is_warned_of(tmp_path: Path) -> None:
    elsewhere = LabeledSet([Item("pool/b", bytes), Item("pool/a", bytes)], ["cat", "dog"], "labels")
    with pytest.warns(UserWarning, match="none of the 2 ids to exclude .* first: 'pool/a'"):
        assert lloss.select(_scores(), k=1, exclude=elsewhere).ids == ["b"]
    file = tmp_path / "labels.csv"
    file.write_text("id,label\nb,cat\nnowhere,dog\n")
    with pytest.warns(UserWarning, match="1 of 2 ids to exclude matches nothing"):
        assert lloss.select(_scores(), k=1, exclude=file).ids == ["d"]
    table = tmp_path / "images.csv"
    table.write_text("id,site\nb,x\nnowhere,y\n")
    with pytest.warns(UserWarning, match="1 of 2 rows matches no image of the scores"):
        lloss.select(_scores(), k=1, balance="site", metadata=table)
    with pytest.warns(UserWarning, match="2 of 3 ids to exclude .* first: 'elsewhere'"):
        lloss.select(_scores(), k=1, exclude=["b", "nowhere", "elsewhere"])
    with pytest.warns(UserWarning, match="none of the 1 id to exclude .* first: 'nowhere'"):
        lloss.select(_scores(), k=1, exclude=["nowhere", file])


def test_equal_embeddings_are_warned_of() -> None:
    scores = lloss.Scores(IDS, {"loss": LOSS, "embedding": np.ones((5, 3), np.float32)})
    with pytest.warns(UserWarning, match="the 4 images compared have only 1 distinct embedding: "):
        assert len(lloss.select(scores, k=2, strategy="herding").ids) == 2


def test_ids_to_exclude_that_are_in_the_scores_are_not_warned_of(tmp_path: Path) -> None:
    folder = ScoresFolder(tmp_path / "scores")
    (tmp_path / "scores").mkdir()
    folder.write_part(0, _scores().table(), [("broken", "an empty file")])
    folder.write_run({"state": "complete"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lloss.select(_scores(), k=1, exclude=["b", "d"]).ids == ["e"]
        assert lloss.select(folder, k=1, exclude=["b", "broken"]).ids == ["d"]


@pytest.mark.parametrize(
    ("scores", "options", "error", "message"),
    [
        (_scores(), {}, SettingsError, "k: give the number"),
        (_scores(), {"k": 1, "settings": lloss.SelectionSettings(k=1)}, SettingsError, "not both"),
        (_scores(), {"k": 1, "strategy": "random", "by": "margin"}, SettingsError, "by 'margin'"),
        (
            _scores(),
            {"k": 1, "strategy": "core-set", "order": "highest"},
            SettingsError,
            "no score",
        ),
        (_scores(), {"k": 9}, SelectionError, "k = 9, but 4 images are left"),
        (_scores(), {"k": 1, "exclude": "labels.csv"}, SettingsError, "a Path of a file"),
        (LOSS, {"k": 1}, ScoresError, "a ndarray: give the scores of a Scorer"),
        (pd.DataFrame({"loss": LOSS}), {"k": 1}, ScoresError, "no column 'id'"),
        (pd.DataFrame({"id": LOSS, "loss": LOSS}), {"k": 1}, ScoresError, "'id' holds float"),
        (pd.DataFrame({"id": [1, "a"]}), {"k": 1}, ScoresError, "a DataFrame of scores"),
        (Path("nowhere"), {"k": 1}, ScoresError, "no scores here"),
    ],
)
def test_mistakes_are_named(
    scores: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lloss.select(scores, **options)


def test_groups_come_from_the_scores_a_file_or_a_mapping(tmp_path: Path) -> None:
    sites = {"a": "x", "b": "y", "d": "y", "e": "x"}
    file = tmp_path / "images.csv"
    file.write_text("id,site\n" + "".join(f"{id},{site}\n" for id, site in sites.items()))
    for metadata in (file, str(file), sites):
        picks = lloss.select(_scores(), k=2, balance="site", metadata=metadata)
        assert picks.ids == ["e", "b"] and picks.groups == {"x": (1, 2), "y": (1, 2)}
    table = _scores().table().append_column("site", pa.array([7, 8, 8, 8, 7]))
    assert lloss.select(table, k=2, balance="site").ids == ["e", "b"]


def test_metadata_and_balance_belong_together() -> None:
    with pytest.raises(SettingsError, match="metadata with no column to balance by"):
        lloss.select(_scores(), k=1, metadata={"a": "x"})
    with pytest.raises(SettingsError, match="metadata with balance 'predicted'"):
        lloss.select(_scores(), k=1, balance="predicted", metadata={"a": "x"})
    with pytest.raises(SettingsError, match=r"no column 'site' \(they have id, .*\); give a table"):
        lloss.select(_scores(), k=1, balance="site")
    with pytest.raises(SettingsError, match="only classifiers predict a class"):
        lloss.select(_scores(), k=1, balance="predicted")
