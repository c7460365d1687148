"""Entry point of ``lloss COMMAND``.

A command's module is imported only when that command runs, so that scoring does not wait for torch
and a missing extra is reported in one line.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import warnings
from typing import NoReturn

import click

import lloss
from lloss.errors import LlossError, MissingExtraError, SettingsError
from lloss.runtime.torchrun_process import refuse_several, torchrun_process

COMMANDS = {
    "init": "Start a project from a pool of images, some labels and a model.",
    "next": "Run one cycle: train, export, score, select the images to label next.",
    "train": "Train a network together with its loss prediction head.",
    "evaluate": "Measure a trained run on held-out labeled images.",
    "export": "Write network and head as one verified ONNX file.",
    "info": "Describe an exported model.",
    "score": "Score a pool of images with an exported model.",
    "merge": "Merge the shards of a scoring run.",
    "select": "Choose the K images to label next from scores.",
    "serve": "Run the scoring and selection daemon.",
    "simulate": "Compare ways to select on fully labeled data, over many trials.",
    "demo": "Run everything on scikit-learn's digits, in a few minutes.",
}
"""Help of each command NAME; ``command`` in ``lloss/cli/NAME.py`` runs it."""

EXTRAS = {
    "onnxruntime": "cpu",
    "torch": "train",
    "torchvision": "train",
    "onnxscript": "train",
    "sklearn": "demo",
    "ray": "ray",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "jinja2": "serve",
    "python_multipart": "serve",
}
"""The extra that installs each package which the base install lacks."""

TOGETHER = ("train", "evaluate")
"""Commands that several processes of ``torchrun`` run together."""

UNIX_MODULES = {"resource", "fcntl"}


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f"lloss.cli.{name}")
        except ModuleNotFoundError as error:
            raise _missing_package(f"lloss {name}", error, name) from error
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # from COMMANDS: imports no command
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(lloss.__version__, prog_name="lloss")
@click.pass_context
def cli(context: click.Context) -> None:
    """Active learning in production: which images should be labeled next?"""
    if context.invoked_subcommand not in TOGETHER:
        refuse_several(f"lloss {context.invoked_subcommand}", "run it without torchrun")


def main(arguments: list[str] | None = None) -> None:
    """Run a command; print a user's error as one line on stderr and exit with its code.

    Of several processes of ``torchrun`` one runs it, and the others follow.
    """
    try:
        process = torchrun_process()
    except SettingsError as error:
        _fail(str(error))
    if process is None:
        _interrupt_on_sigterm()
        _run(arguments)
        return
    # torch's DistributedDataParallel would note in each process that no layer is unused.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from lloss.training.torchrun import follow, lead  # imports torch, and so is late

    if process.rank:
        follow(process)
    lead(process, lambda: _run(arguments))


def _interrupt_on_sigterm() -> None:
    """Stop on SIGTERM as on Ctrl-C, so that nothing is left behind; the daemon sets its own."""
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _run(arguments: list[str] | None) -> None:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # damage that the decoder survives
    try:
        cli.main(arguments, prog_name="lloss", standalone_mode=False)
    except LlossError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = _missing_package("this command", error)
        if not isinstance(missing, LlossError):
            raise
        _fail(str(missing))
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'the output'}: {error.strerror or error}")
    except MemoryError as error:
        _fail(f"out of memory: {error or 'one step needs too much'}; process less at a time")
    except UnicodeEncodeError as error:
        _fail(f"file name is not UTF-8: {error.object!r}; rename the file")


def _missing_package(what: str, error: ModuleNotFoundError, command: str = "") -> Exception:
    package = (error.name or "").partition(".")[0]
    if package in UNIX_MODULES:
        return SettingsError(f"{what} runs on Linux and macOS")
    if package not in EXTRAS:
        return error
    return MissingExtraError(what, "demo" if command == "demo" else EXTRAS[package], package)


def _fail(message: str, code: int = 2) -> NoReturn:
    click.echo(f"lloss: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
