"""Parse a pool's string."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.errors import PoolError
from lloss.pools.uri import PoolUri, without_secrets


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{0..2}.tar", ["s-0.tar", "s-1.tar", "s-2.tar"]),
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("{9..10}", ["9", "10"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("{,a}b", ["b", "ab"]),
    ],
)
def test_braces_are_written_out_as_a_shell_does(pattern: str, names: list[str]) -> None:
    assert PoolUri.parse(pattern).paths() == names


@pytest.mark.parametrize(
    "pattern",
    ["{0..3.tar", "0..3}.tar", "a{b}c", "{}", "a}{b", "{a,{b}", "{x{0..1},y}.tar", "{2..0}",
     "{0..999999999999}", "{0..999}{0..999}{0..99}"],
)  # fmt: skip
def test_other_braces_are_a_pool_error(pattern: str) -> None:
    with pytest.raises(PoolError, match="braces|range|stands for more than 1,000,000"):
        PoolUri.parse(pattern).paths()


def test_options_are_split_off_the_path() -> None:
    uri = PoolUri.parse("data.parquet?id=name&image=a%20b")
    assert (uri.path, uri.options) == ("data.parquet", {"id": "name", "image": "a b"})
    assert str(uri) == "data.parquet?id=name&image=a%20b"
    assert PoolUri.parse(uri) is uri
    for wrong, reason in (
        ("a.parquet?colour=red", "no such option 'colour'; known are id, image "),
        ("a.parquet?id=", "option id is empty"),
    ):
        with pytest.raises(PoolError, match=reason):
            PoolUri.parse(wrong)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("https://host/p.parquet?part=1", "https://host/p.parquet?part=1"),
        ("https://host/p.parquet?id=name", "https://host/p.parquet"),
        ("file:///data/p?id=name", "/data/p"),
        ("local:///data/p", "/data/p"),
    ],
)
def test_urls_keep_a_servers_query_and_file_urls_become_paths(text: str, path: str) -> None:
    uri = PoolUri.parse(text)
    assert (uri.path, str(uri)) == (path, text)


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
    with pytest.raises(PoolError) as caught:
        PoolUri.parse("s3://bucket/pool?key=hush&secret=hush")
    assert "hush" not in str(caught.value)


def test_a_string_in_a_projects_file_is_relative_to_the_project(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for name in ("p.parquet?id=name", "s-{0..3}.tar", "photos"):
        written = PoolUri.parse(tmp_path / name).relative_to(root)
        assert written == f"../{name}"
        assert PoolUri.parse(written, root).text == str(tmp_path / name)
    for name in ("s3://bucket/p?id=name", "memory://x"):
        assert PoolUri.parse(name).relative_to(root) == PoolUri.parse(name, root).text == name
