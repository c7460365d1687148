"""Objects that installed packages register for lloss, by entry points of their metadata."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from lloss.errors import SettingsError

T = TypeVar("T")

MODELS = "lloss.models"
"""The group of factories of networks, see :mod:`lloss.modeling.network_factory`."""

STRATEGIES = "lloss.strategies"
"""The group of strategies, see :mod:`lloss.selection.strategies`."""

TASKS = "lloss.tasks"
"""The group of tasks, see :mod:`lloss.tasks`."""


def registered(group: str) -> tuple[str, ...]:
    """Return the names in a group, without importing what they name."""
    return tuple(sorted({point.name for point in _found(group)}))


def load(group: str, name: str) -> Any:
    """Import what is registered under a name.

    Raises ``SettingsError`` where that fails, or two packages registered the name.
    """
    points = [point for point in _found(group) if point.name == name]
    if len({point.value for point in points}) > 1:
        packages = " and ".join(sorted(map(package_of, points)))
        raise SettingsError(
            f"{name!r}: {packages} both register it as an entry point of {group}; uninstall one"
        )
    (point, *_) = points
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # an import runs any code
        raise SettingsError(
            f"{name!r}: the entry point {point.value} of the package {package_of(point)} cannot be "
            f"imported: {reason(error)}; repair or uninstall the package"
        ) from error


def names_with(group: str, own: Iterable[str]) -> tuple[str, ...]:
    """Return lloss's own names, then those of installed packages."""
    return tuple(dict.fromkeys((*own, *registered(group))))


def load_object(
    group: str, name: str, kind: type[T], known: Sequence[str], has: Sequence[str]
) -> T:
    """Import the object of a kind, such as ``Task``, that is registered under its own name.

    Raises ``SettingsError`` for a name that is not ``known``, another object, or one that lacks an
    attribute of ``has``.
    """
    what = f"{kind.__name__.lower()} {name!r}"
    if name not in known:
        raise SettingsError(f"{what}: choose one of {', '.join(known)}")
    try:
        found = load(group, name)
    except SettingsError as error:
        raise SettingsError(f"{kind.__name__.lower()} {error}") from error
    if not isinstance(found, kind):
        other = "a class; register an object of it" if isinstance(found, type) else repr(found)
        raise SettingsError(
            f"{what}: its entry point is to name a {kind.__name__} object of {kind.__module__}, it "
            f"names {other}"
        )
    if missing := [each for each in has if not hasattr(found, each)]:
        raise SettingsError(f"{what}: {type(found).__name__} has no {missing[0]}; write it")
    own = getattr(found, "name")  # noqa: B009  # of any kind
    if own != name:
        raise SettingsError(f"{what}: its object has the name {own!r}; register it under that")
    return found


def package_of(point: EntryPoint) -> str:
    """Return the name of the distribution that registered an entry point."""
    return point.dist.name if point.dist else point.module


def reason(error: BaseException) -> str:
    """Return the error's kind and message in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _found(group: str) -> Iterable[EntryPoint]:
    return _scanned(group, tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _scanned(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Scan the metadata of all packages once for each path that they are found on."""
    return tuple(entry_points(group=group))
