"""The options of ``lloss serve``, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lloss.serve.daemon.settings import Limits, ServeSettings

from lloss.cli import serve as cli
from lloss.errors import SettingsError

TOKEN = "0123456789abcdef"


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the command; the settings that it would serve with."""
    kept: list[ServeSettings] = []
    monkeypatch.setattr(cli, "run", lambda settings, _: kept.append(settings))
    monkeypatch.setattr(cli.logs, "configure", lambda: None)
    monkeypatch.delenv(cli.TOKEN, raising=False)

    def run(*options: str) -> ServeSettings:
        arguments = ["m.onnx", f"--data-dir={tmp_path / 'data'}", *options]
        done = CliRunner().invoke(cli.command, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return kept[-1]

    return run


def test_defaults_are_those_of_the_settings(settings_of: Any, tmp_path: Path) -> None:
    settings = settings_of()
    plain = ServeSettings(model=Path("m.onnx"), data_dir=tmp_path / "data")
    assert settings == plain and settings.limits == Limits()
    assert settings.model.is_absolute() and settings.loopback
    assert settings.url == "http://127.0.0.1:8000"


def test_options_reach_the_settings(settings_of: Any, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    settings = settings_of(
        "--port=0", "--pending=30m", "--drain=5", "--timeout=1.5s", "--max-body=1G", "--queue=9",
        f"--pool-root={tmp_path / 'link'}", "--pool-root=s3://bucket/pools",
        "--allowed-host=Scores.Example.", "--public-url=HTTPS://Next.Example:8443/",
        "--batch-size=4", "--job-batch-size=2", "--threads=1",
        "--provider=cpu", "--image-url=https://x.example/{pool}?id={id}",
    )  # fmt: skip
    assert (settings.pending_seconds, settings.drain_seconds) == (1800, 5)
    assert settings.pool_roots == (str((tmp_path / "images").resolve()), "s3://bucket/pools")
    assert settings.allowed_hosts == ("scores.example", "next.example")
    assert settings.public_url == "https://next.example:8443"
    limits = settings.limits
    assert (limits.request_seconds, limits.body_bytes, limits.queue_images) == (1.5, 1 << 30, 9)
    assert limits.in_flight_bytes >= 4 * limits.body_bytes


def test_the_token_comes_from_a_file_or_the_environment(
    settings_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(cli.logs, "event", lambda *_, reason: warnings.append(reason))
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert settings_of(f"--token-file={file}", "--host=0.0.0.0").token == TOKEN
    assert warnings == []
    file.chmod(0o644)
    assert settings_of(f"--token-file={file}").token == TOKEN
    assert "chmod 600" in warnings[0] and TOKEN not in warnings[0]
    monkeypatch.setenv(cli.TOKEN, TOKEN)
    assert settings_of().token == TOKEN
    assert cli.TOKEN not in cli.os.environ


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host=0.0.0.0"], "requests need a token"),
        (["--host=example.org"], "requests need a token"),
        (["--token-file=short"], "at least 16"),
        (["--token-file=empty"], "is empty"),
        (["--token-file=spaced"], "use letters and digits, such as `openssl rand"),
        (["--token-file=binary"], "cannot be read"),
        (["--token-file=none"], "cannot be read: No such file"),
        (["--pool-root=short"], "is not a folder"),
        (["--allowed-host=http://a"], "without a port"),
        (["--public-url=scores.example"], "give https://NAME"),
        (["--public-url=https://a b"], "give https://NAME"),
        (["--public-url=https://me@a"], "give https://NAME"),
        (["--public-url=https://scores.example/lloss"], "without a path"),
        (["--image-url=ftp://{pool}/{id}"], "must begin with http"),
        (["--image-url=http://x/{id}"], "contain {pool} and {id}"),
        (["--pending=0"], "--pending 0: must be above 0"),
        (["--pending=soon"], "give a duration"),
        (["--max-body=lots"], "give a size"),
        (["--max-body=0"], "--max-body 0: must be above 0"),
        (["--timeout=0s"], "--timeout 0: must be above 0"),
        (["--port=65536"], "is not in the range"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, options: list[str], message: str
) -> None:
    from lloss.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.TOKEN, raising=False)
    for name, text in [("short", b"abc"), ("empty", b"\n"), ("spaced", b"0123 456789abcdef"),
                       ("binary", b"\xff\xfe" * 20)]:  # fmt: skip
        (tmp_path / name).write_bytes(text)
    with pytest.raises(SystemExit) as ended:
        main(["serve", "m.onnx", "--data-dir=data", *options])
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "data").exists()


def settings(**given: Any) -> ServeSettings:
    return ServeSettings(model=Path("m"), data_dir=Path("d"), **given)


def test_loopback_needs_no_token() -> None:
    for host in ("localhost", "127.0.0.1", "127.8.9.1", "::1"):
        assert settings(host=host).loopback
    assert settings(host="::1", port=80).url == "http://[::1]:80"


def test_settings_from_python_are_checked_too() -> None:
    with pytest.raises(SettingsError, match="limit body_seconds nan: must be above 0"):
        Limits(body_seconds=float("nan"))
    with pytest.raises(SettingsError, match="--threads -1: must not be below 0"):
        settings(threads=-1)
    with pytest.raises(SettingsError, match="--port 65536: give one of 0 to 65535"):
        settings(port=1 << 16)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("uvicorn", "pip install 'lloss[serve]'"),
        ("resource", "lloss: lloss serve runs on Linux and macOS\n"),
    ],
)
def test_where_it_cannot_run_it_is_one_line(missing: str, message: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from lloss.cli.main import main; main(['serve', 'm.onnx', '--data-dir=d'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
