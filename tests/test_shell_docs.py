"""The command lines of README and the documentation: their commands and options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from lloss.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("serve/**/*.md"))]

BLOCK = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"no such command: lloss {name}"
    return command


def _options(command: click.Command) -> set[str]:
    parameters = command.get_params(click.Context(command))
    return {text for one in parameters for text in (*one.opts, *one.secondary_opts)}


def _lines(page: Path) -> list[list[str]]:
    """The words of each ``lloss …`` in the blocks of a page, without the first."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words: list[str] = []
            try:
                words = shlex.split(line, comments=True)
            except ValueError:
                continue  # no shell: a quote of another language
            for start, word in enumerate(words):
                if word == "lloss" and (not start or words[start - 1] in ("&&", "|", ";")):
                    rest = words[start + 1 :]
                    end = [at for at, word in enumerate(rest) if word in ("&", "&&", "|", ">", ";")]
                    found.append(rest[: min(end, default=len(rest))])
    return found


LINES = [(page.relative_to(ROOT), words) for page in PAGES for words in _lines(page)]


def test_the_pages_have_command_lines() -> None:
    assert {words[0] for _, words in LINES} >= {"init", "next", "train", "score", "select", "serve"}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_lines_are_taken(name: str) -> None:
    command = _command(name)
    for page, words in LINES:
        if words[0] == name:
            try:
                command.make_parser(click.Context(command)).parse_args(words[1:])
            except click.UsageError as error:
                pytest.fail(f"{page}: lloss {shlex.join(words)}: {error}")


def test_options_in_the_text_exist() -> None:
    every = set().union(*(_options(_command(name)) for name in COMMANDS))
    for page in PAGES:
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        for span in INLINE.findall(text):
            of = span.split()
            known = every
            if of[0] == "lloss" and len(of) > 1 and of[1] in COMMANDS:
                known = _options(_command(of[1]))
            elif of[0][0] not in "-[<" and of[0] not in ("lloss", *COMMANDS):
                continue  # of another program
            unknown = set(OPTION.findall(span)) - known
            assert not unknown, f"{page.relative_to(ROOT)}: `{span}`: no option {unknown}"
