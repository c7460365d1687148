"""Options that more than one command takes."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from lloss.data.class_labels import DATA_ROOT
from lloss.data.empty_labels import EMPTY
from lloss.errors import SettingsError
from lloss.tasks.presets import PRESETS
from lloss.tasks.train_settings import TrainSettings, settings_of

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
ALIASES = {"head_weight": ["--head-weight", "--lambda"]}


def training_settings(command: F) -> F:
    """Every field of the training settings as an option, and ``--preset``.

    The command receives them all in ``**given``; those not given are None.
    """
    hints = typing.get_type_hints(TrainSettings)
    for field in reversed(dataclasses.fields(TrainSettings)):
        command = _option(field, hints[field.name])(command)
    command = click.option("--detach-head", is_flag=True, help="The same as --gradient-stop 0.")(
        command
    )
    return click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        default="default",
        show_default=True,
        help="Named settings; options beside it win.",
    )(command)


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[[F], F]:
    flag = "--" + field.name.replace("_", "-")
    names = [*ALIASES.get(field.name, [flag]), field.name]
    shown = field.default if not isinstance(field.default, tuple) else _words(field.default)
    help = f"{field.metadata['help']}  [default: {'none' if shown == '' else shown}]"
    if hint is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=help)
    if typing.get_origin(hint) is Literal:
        choice = click.Choice(typing.get_args(hint))
        return click.option(*names, type=choice, default=None, help=help)
    if typing.get_origin(hint) is tuple:
        kind = {int: int, str: str, float: float}[typing.get_args(hint)[0]]
        return click.option(*names, type=_List(kind), default=None, help=help)
    return click.option(*names, type=hint, default=None, help=help)


def _words(values: tuple[Any, ...]) -> str:
    return ",".join(map(str, values))


class _List(click.ParamType[tuple[Any, ...]]):
    """Comma-separated values."""

    name = "list"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        try:
            return tuple(self.kind(word.strip()) for word in str(value).split(",") if word.strip())
        except ValueError:
            self.fail(
                f"{value!r}: give {self.kind.__name__} values with commas between", param, ctx
            )


def chosen_settings(preset: str, detach_head: bool, given: dict[str, Any]) -> TrainSettings:
    """What :func:`training_settings` collected, as settings.

    Raises:
        SettingsError: a value cannot be used.
    """
    if detach_head:
        if given.get("gradient_stop") not in (None, 0):
            raise click.UsageError("--detach-head is --gradient-stop 0: give one of them")
        given = {**given, "gradient_stop": 0}
    return settings_of(preset, **given)


def labels_options(command: F) -> F:
    """``--labels`` and ``--data-root``, beside labeled ``DATA`` of any kind."""
    command = click.option(
        "--data-root",
        type=PATH,
        default=DATA_ROOT,
        show_default=True,
        help="Where torchvision's sets lie or are downloaded to.",
    )(command)
    return click.option(
        "--labels",
        type=PATH,
        help="When DATA is a pool: a CSV with the columns id and label, or what the task reads.",
    )(command)


def skip_bad_option(command: F) -> F:
    """``--skip-bad``."""
    return click.option(
        "--skip-bad", is_flag=True, help="Leave broken annotations out instead of stopping."
    )(command)


def empty_option(command: F) -> F:
    """``--empty``; "" where it is not given."""
    return click.option(
        "--empty",
        type=click.Choice(EMPTY),
        callback=lambda context, option, value: value or "",
        help="What labels that show nothing mean: the image is labeled and shows background, or it "
        "is not labeled yet.  [default: background]",
    )(command)


class Subset(click.ParamType[float]):
    """A number of images, or a share such as 50% or 0.5."""

    name = "M"

    def convert(self, value: object, param: object, ctx: object) -> float:
        """0 for all, a share below 1, or a number."""
        text = str(value)
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise SettingsError(f"--subset {text}: give a number, or a share such as 50%") from None
        if text.endswith("%") and not 0 < share <= 1:
            raise SettingsError(f"--subset {text}: a share is above 0% and at most 100%")
        return 0.0 if text.endswith("%") and share == 1 else share
