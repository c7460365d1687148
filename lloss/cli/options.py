"""Options and parameter types that several commands share."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from lloss.data.class_labels import DATA_ROOT
from lloss.data.labeled_set import EMPTY
from lloss.runtime.providers import parse_provider
from lloss.tasks.presets import PRESETS
from lloss.tasks.train_settings import TrainSettings

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class _Folder(click.ParamType["str | Path"]):
    """A folder of this machine as a path, or a URL as text."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | Path:
        return value if isinstance(value, Path) or "://" in value else Path(value)


FOLDER_OR_URL = _Folder()
ALIASES = {"head_weight": ["--lambda"]}
REPEATED = {"model_args": ("--model-arg", "KEY=VALUE")}


def print_notes(*lines: str) -> None:
    """Print the lines on stderr, without empty ones."""
    for line in lines:
        if line:
            click.echo(line, err=True)


class _List(click.ParamType[tuple[Any, ...]]):
    """Comma-separated values."""

    name = "list"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        try:
            return tuple(self.kind(word.strip()) for word in str(value).split(",") if word.strip())
        except ValueError:
            self.fail(f"{value!r}: give {self.kind.__name__} values separated by commas", param)


NAMES = _List(str)
"""Names separated by commas, as a tuple."""


def automatic_option(name: str, automatic: str, help: str) -> Callable[[F], F]:
    """Return an option for a count; 0, the default, stands for what ``automatic`` describes."""
    return click.option(name, type=click.IntRange(0), default=0, show_default=automatic, help=help)


def _checked_provider(context: Any, option: Any, value: str) -> str:
    parse_provider(value)
    return value


provider_option = click.option(
    "--provider",
    callback=_checked_provider,
    metavar="[auto|tensorrt|cuda|cpu|cuda:N]",
    default="auto",
    help="Where to compute; auto takes the first that works of tensorrt, cuda, cpu. cuda:1 and "
    "tensorrt:1 name a GPU, counted from 0.",
)

training_device_option = click.option(
    "--device", default="", show_default="cuda if available", help="cpu or cuda."
)

skip_bad_option = click.option(
    "--skip-bad", is_flag=True, help="Leave out broken annotations instead of stopping."
)

empty_option = click.option(
    "--empty",
    type=click.Choice(EMPTY),
    callback=lambda context, option, value: value or "",
    show_default=EMPTY[0],
    help="What a label without objects means: the image shows background, or is not labeled yet.",
)


class _ImageCount(click.IntRange):
    name = "number of images"


subset_option = click.option(
    "--subset",
    type=_ImageCount(0),
    default=0,
    metavar="M",
    help="Select from M random images only; 0: all.",
)

exclude_option = click.option(
    "--exclude",
    type=PATH,
    multiple=True,
    help="Leave out these images: a CSV with a column id, or labels. Repeatable.",
)


def labels_options(command: F) -> F:
    """Add ``--labels`` and ``--data-root``, which belong to the argument DATA."""
    command = click.option(
        "--data-root", type=PATH, default=DATA_ROOT, help="Where torchvision keeps its data sets."
    )(command)
    return click.option(
        "--labels",
        type=PATH,
        help="If DATA is a pool: its labels, a CSV with the columns id and label, or a format of "
        "docs/labels.md.",
    )(command)


def training_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every training setting as an option.

    The command receives ``preset`` and ``train``, a dict of the settings that the user gave.
    """
    fields = dataclasses.fields(TrainSettings)
    hints = typing.get_type_hints(TrainSettings)

    @functools.wraps(command)
    def collect(*args: Any, **values: Any) -> Any:
        train = {field.name: values.pop(field.name) for field in fields}
        train = {name: value for name, value in train.items() if value is not None}
        return command(*args, train=train, **values)

    for field in reversed(fields):
        collect = _setting_option(field, hints[field.name])(collect)
    return click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        default="default",
        help="Named settings; other options override them.",
    )(collect)


def _setting_option(field: dataclasses.Field[Any], hint: Any) -> Callable[[F], F]:
    flag = "--" + field.name.replace("_", "-")
    default = field.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    help = f"{field.metadata['help']}  [default: {'none' if default == '' else default}]"
    if hint is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=help)
    if field.name in REPEATED:
        flag, metavar = REPEATED[field.name]
        return click.option(
            flag,
            field.name,
            multiple=True,
            metavar=metavar,
            callback=lambda context, option, value: value or None,
            help=help,
        )
    kind = hint
    if typing.get_origin(hint) is Literal:
        kind = click.Choice(typing.get_args(hint))
    elif typing.get_origin(hint) is tuple:
        kind = _List(typing.get_args(hint)[0])
    names = [flag, *ALIASES.get(field.name, []), field.name]
    return click.option(*names, type=kind, default=None, help=help)
