"""Options that ``lloss score`` and ``lloss serve`` share."""

from __future__ import annotations

from typing import Any

import click

from lloss.errors import EngineError
from lloss.runtime.providers import parse_device


class Device(click.ParamType[str]):
    """A provider, perhaps with the number of a GPU: ``auto``, ``cuda``, ``cuda:1``, ``cpu``."""

    name = "auto|tensorrt|cuda|cpu"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Check it, and hand it on as it is."""
        try:
            parse_device(value)
        except EngineError as error:
            self.fail(str(error), param, ctx)
        return str(value)


provider_option = click.option(
    "--provider",
    type=Device(),
    metavar="[auto|tensorrt|cuda|cpu|cuda:N]",
    default="auto",
    show_default=True,
    help="What computes; auto takes the first that works of tensorrt, cuda, cpu. cuda:1 and "
    "tensorrt:1 name a GPU, counted from 0.",
)
