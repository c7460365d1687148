"""The command line: ``lloss COMMAND``.

Commands load when they are called, by name, so that scoring never waits for torch and a missing
extra is one line.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import click

import lloss
from lloss.errors import LlossError, MissingExtraError, SettingsError

COMMANDS = {
    "init": "lloss.cli.init_next:init",
    "next": "lloss.cli.init_next:next_cycle",
    "train": "lloss.cli.train:train",
    "evaluate": "lloss.cli.evaluate:evaluate",
    "export": "lloss.cli.export:export",
    "info": "lloss.cli.select_info:info",
    "score": "lloss.cli.score_merge:score",
    "merge": "lloss.cli.score_merge:merge",
    "select": "lloss.cli.select_info:select",
    "serve": "lloss.cli.serve:serve",
    "demo": "lloss.cli.demo:demo",
}

EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "onnxscript": "train",
    "matplotlib": "train",
    "sklearn": "demo",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "jinja2": "serve",
    "python_multipart": "serve",
}
"""Which extra brings a package that the base install lacks."""

UNIX = frozenset({"resource", "fcntl"})
"""Modules of the standard library that Windows lacks."""


class _Commands(click.Group):
    """Loads a command's module when it is asked for; one line for every error of the user's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise _as_missing(f"lloss {name}", error, name) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Without loading them: `lloss --help` works in the base install, at once.
        with formatter.section("Commands"):
            formatter.write_dl([(name, HELP[name]) for name in COMMANDS])


HELP = {
    "init": "Start a project: a pool of images, some labels, a model.",
    "next": "One whole cycle: train, export, score, select the images to label next.",
    "train": "Train a network with its loss prediction head.",
    "evaluate": "Measure a run on held-out labeled images.",
    "export": "Write network and head as one verified ONNX file.",
    "info": "Tell what an artifact is.",
    "score": "Score a pool of images with an artifact.",
    "merge": "Put the shards of a scoring run together.",
    "select": "Choose the K images to label next from scores.",
    "serve": "Score and select as a service.",
    "demo": "The whole job on scikit-learn's digits, in a few minutes.",
}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lloss.__version__, prog_name="lloss")
def cli() -> None:
    """Active learning that works in production: which images should be labeled next?"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors of the user's are one line on stderr and exit 2."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damage that a decoder survives
    try:
        cli.main(arguments, prog_name="lloss", standalone_mode=False)
    except LlossError as error:
        _leave(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = _as_missing("this command", error)
        if not isinstance(missing, LlossError):
            raise
        _leave(str(missing), 2)
    except (KeyboardInterrupt, click.Abort):
        _leave("interrupted", 130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        _leave(f"{error.filename or 'the output'}: {error.strerror or error}", 2)
    except MemoryError as error:
        _leave(f"not enough memory: {error or 'for one piece of work'}; give it less at a time", 2)
    except UnicodeEncodeError as error:
        _leave(f"a name that is not UTF-8: {error.object!r}; rename it", 2)


def _as_missing(what: str, error: ModuleNotFoundError, command: str = "") -> Exception:
    package = (error.name or "").partition(".")[0]
    if package in UNIX:
        return SettingsError(f"{what} runs on Linux and macOS")
    if package not in EXTRAS:
        return error
    extra = "demo" if command == "demo" else EXTRAS[package]
    return MissingExtraError(what, extra, package)


def _leave(message: str, code: int) -> Any:
    click.echo(f"lloss: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
