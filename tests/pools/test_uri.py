from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lloss.errors import PoolError
from lloss.pools import open_pool
from lloss.pools.uri import PoolUri, expanded, from_folder, to_folder, without_secrets


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{0..2}.tar", ["s-0.tar", "s-1.tar", "s-2.tar"]),
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("{x{0..1},y}.tar", ["x0.tar", "x1.tar", "y.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{,a}b", ["b", "ab"]),
    ],
)
def test_braces_are_written_out_as_a_shell_does(pattern: str, names: list[str]) -> None:
    assert expanded(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..3.tar", "0..3}.tar", "a{b}c", "{}", "a}{b", "{a,{b}"])
def test_a_brace_that_means_nothing_is_a_pool_error(pattern: str) -> None:
    with pytest.raises(PoolError):
        open_pool(pattern)


def test_braces_for_too_many_files_are_refused_at_once() -> None:
    with pytest.raises(PoolError, match="more than 1,000,000"):
        expanded("{0..999999999999}")


def test_options_are_taken_off_the_path() -> None:
    asked = PoolUri.parse("data.parquet?id=name&image=a%20b")
    assert (asked.path, asked.options) == ("data.parquet", {"id": "name", "image": "a b"})
    assert str(asked) == "data.parquet?id=name&image=a%20b"


def test_a_file_that_is_really_called_so_wins(tmp_path: Path) -> None:
    folder = tmp_path / "a?id=b"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(b"x")
    assert [item.id for item in open_pool(folder)] == ["x.jpg"]
    braces = tmp_path / "a{b"
    folder.rename(braces)
    assert [item.id for item in open_pool(braces)] == ["x.jpg"]


def test_an_unknown_option_names_those_there_are() -> None:
    with pytest.raises(PoolError, match="no such option 'colour'; known are id, image, split"):
        PoolUri.parse("a.parquet?colour=red")
    with pytest.raises(PoolError, match="option id is empty"):
        PoolUri.parse("a.parquet?id=")


def test_an_option_of_another_kind_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(PoolError, match="takes no option 'id'"):
        open_pool(f"{tmp_path / 'a.npy'}?id=name")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hush@bucket/pool",
        "https://me:hush@host/p.parquet?id=name",
        "https://host/p.parquet?X-Amz-Signature=hush&part=1",
        "https://host/p.parquet?part=1&AccessKeyId=hush&sig=hush",
    ],
)
def test_credentials_are_never_shown(uri: str) -> None:
    assert "hush" not in str(PoolUri.parse(uri))
    assert "hush" not in without_secrets(f"cannot reach {uri} at all")
    assert str(PoolUri.parse(uri)).startswith(uri.partition("://")[0] + "://")


def test_credentials_in_a_refused_uri_are_not_shown_either() -> None:
    with pytest.raises(PoolError) as caught:
        PoolUri.parse("s3://bucket/pool?key=hush&secret=hush")
    assert "hush" not in str(caught.value)


def test_the_servers_query_stays_in_its_url() -> None:
    uri = "https://host/p.parquet?part=1"
    assert PoolUri.parse(uri).path == uri
    assert PoolUri.parse("https://host/p.parquet?id=name").path == "https://host/p.parquet"


def test_a_name_goes_into_a_projects_file_and_back(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for name in ("p.parquet?id=name", "s-{0..3}.tar", "photos"):
        written = to_folder(root, str(tmp_path / name))
        assert written == f"../{name}"
        assert Path(from_folder(root, written)).resolve() == tmp_path / name
    for name in ("s3://bucket/p?id=name", "memory://x"):
        assert to_folder(root, name) == from_folder(root, name) == name
