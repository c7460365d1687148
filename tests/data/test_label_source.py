from __future__ import annotations

from pathlib import Path

import pytest

from lloss.data.label_source import relative_source, split_option


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
    for kept in ("fiftyone:a.json", "~/a.json", "none.json"):
        assert relative_source(kept, project) == kept
