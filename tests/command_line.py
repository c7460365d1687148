"""Run the command line, in this process or as one of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from lloss.cli.main import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def call(capsys: pytest.CaptureFixture[str], *words: object, code: int | None = None) -> Result:
    """Run a command in this process, which saves seconds of imports; check its exit code."""
    capsys.readouterr()
    left = 0
    try:
        main([str(word) for word in words])
    except SystemExit as error:
        left = int(error.code or 0)
    captured = capsys.readouterr()
    assert code is None or left == code, captured.err
    return Result(left, captured.out, captured.err)


def lloss(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    command = [sys.executable, "-m", "lloss", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done
