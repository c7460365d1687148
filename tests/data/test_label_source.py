from __future__ import annotations

from pathlib import Path

import pytest

from lloss.data.label_source import nothing_in, relative_source, split_option


def test_an_option_is_split_from_a_path(tmp_path: Path) -> None:
    assert split_option(Path("a.json?control=kind"), "control") == (Path("a.json"), "kind")
    assert split_option(Path("a.json"), "control") == (Path("a.json"), "")
    named = tmp_path / "a?control=b"
    named.touch()
    assert split_option(named, "control") == (named, "")


def test_a_source_means_the_same_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").touch()
    project = Path("projects/one")
    up = str(Path("../../a.json"))
    assert relative_source("a.json", project) == up
    assert relative_source("a.json?control=kind", project) == f"{up}?control=kind"
    assert relative_source("none.json", project) == str(Path("../../none.json"))
    for kept in ("fiftyone:a.json", "~/a.json"):
        assert relative_source(kept, project) == kept


def test_labels_that_do_not_exist_yet_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    assert nothing_in(path) and nothing_in(Path(f"{path}?control=kind"))
    path.write_text(" \n")
    assert nothing_in(path)
    path.write_text("[]")
    assert not nothing_in(path) and not nothing_in(Path(f"{path}?control=kind"))
    folder = tmp_path / "masks"
    folder.mkdir()
    assert nothing_in(folder)
    (folder / "a.png").touch()
    assert not nothing_in(folder) and not nothing_in(Path("fiftyone:none"))
