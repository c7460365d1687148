"""A function or class that makes a network, by ``package.module:name``.

The name may come from the checkpoint of somebody else. Therefore lloss calls nothing that does not
name a parameter for the number of classes, and imports nothing of Python's own library:
``os:system`` does not make a network. A module of that name is imported all the same, which runs
its code.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import nn

from lloss.entry_points import MODELS, load, reason, registered
from lloss.errors import SettingsError
from lloss.modeling.network_checks import check_weights
from lloss.text.similar_names import nearest

CLASSES = ("num_classes", "classes")
"""Parameters that a factory may receive the number of classes by."""

_NAME = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")

Arguments = dict[str, Any]
Factory = Callable[..., Any]


def read_arguments(given: Sequence[str]) -> Arguments:
    """Read ``key=value`` texts: a value is JSON where it can be read as such, otherwise text.

    Raises ``SettingsError`` for another text, a key that is there twice, and the number of classes.
    """
    arguments: Arguments = {}
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise SettingsError(f"model_args {text!r}: write key=value, such as depth=3")
        if key in arguments:
            raise SettingsError(f"model_args {text!r}: {key} is given twice")
        if key in CLASSES:
            raise SettingsError(f"model_args {text!r}: lloss passes the number of classes itself")
        arguments[key] = _value(value)
    return arguments


def _value(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)  # NaN and Infinity are no JSON, though Python reads them

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def find_factory(model: str) -> Factory:
    """Import the factory of ``package.module:name``, or of an entry point's name.

    Modules in the current directory can be imported too. Raises ``SettingsError`` where there is
    none, or it names no parameter of :data:`CLASSES`.
    """
    if ":" in model:
        factory = _imported(model)
    elif model not in registered(MODELS):
        raise SettingsError(
            f"model {model!r}: unknown; write timm:NAME, package.module:factory, or a name that a "
            f"package registers as an entry point of {MODELS}"
        )
    else:
        try:
            factory = load(MODELS, model)
        except SettingsError as error:
            raise SettingsError(f"model {error}") from error
    _classes_parameter(model, factory)
    return factory  # type: ignore[no-any-return]  # it has a signature


def make_network(model: str, factory: Factory, classes: int, given: Mapping[str, Any]) -> nn.Module:
    """Call a factory; ``SettingsError`` where it fails, or returns something else."""
    takes = _classes_parameter(model, factory)
    _refuse_unknown(model, factory, given)
    try:
        with torch.enable_grad():  # at its end gradients are on, whatever the factory did
            network = factory(**{takes: classes}, **given)
    except ModuleNotFoundError as error:
        raise _missing(model, model.partition(":")[0], error) from error
    except (Exception, SystemExit) as error:
        what = "".join(f", {key}={value!r}" for key, value in given.items())
        raise SettingsError(
            f"model {model!r}: cannot be built with {takes}={classes}{what}: {reason(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise SettingsError(
            f"model {model!r}: returned a {type(network).__name__}, not a torch.nn.Module"
        )
    check_weights(network, f"model {model!r}")
    return network


def _classes_parameter(model: str, factory: Any) -> str:
    parameters = _parameters(factory)
    for name in CLASSES:
        kind = parameters[name].kind if name in parameters else None
        if kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            return name
    raise SettingsError(
        f"model {model!r}: names no parameter {' or '.join(CLASSES)}, by which lloss passes the "
        "number of classes, and by which it knows a factory of networks; write one: "
        "def build(num_classes): return ..."
    )


def _parameters(factory: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):  # it cannot be called, or is of C without a signature
        return {}


def _refuse_unknown(model: str, factory: Factory, given: Mapping[str, Any]) -> None:
    parameters = _parameters(factory)
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    if unknown := [name for name in given if name not in parameters]:
        known = [name for name in parameters if name not in CLASSES]
        raise SettingsError(
            f"model_args: {model} takes no {unknown[0]!r}; it takes {', '.join(known) or 'nothing'}"
        )


def _imported(model: str) -> Any:
    parts = _NAME.fullmatch(model)
    if parts is None:
        raise SettingsError(
            f"model {model!r}: write package.module:factory, or timm:NAME for a network of timm"
        )
    name, attribute = parts.groups()
    if name.partition(".")[0] in sys.stdlib_module_names or "__" in name:
        raise SettingsError(
            f"model {model!r}: {name} is a module of Python itself, which has no networks"
        )
    module = _module(model, name)
    if not hasattr(module, attribute):
        known = [each for each, value in vars(module).items() if callable(value)]
        similar = nearest(attribute, known, resembles=0.6)
        raise SettingsError(
            f"model {model!r}: {name} ({module.__file__}) has no {attribute!r}"
            + (f"; did you mean {similar!r}?" if similar else "")
        )
    return getattr(module, attribute)


def _module(model: str, name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # the last: a file here must not replace a module of a package
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(model, name, error) from error
    except (Exception, SystemExit) as error:  # an import runs any code
        raise _broken(model, name, error) from error


def _broken(model: str, name: str, error: BaseException) -> SettingsError:
    return SettingsError(f"model {model!r}: {name} cannot be imported: {reason(error)}")


def _missing(model: str, name: str, error: ModuleNotFoundError) -> SettingsError:
    missing = error.name or ""
    if name == missing or name.startswith(missing + "."):
        return SettingsError(
            f"model {model!r}: no module {missing!r}, neither installed nor in the current "
            f"directory {Path.cwd()}; run lloss in the folder that holds it, or install it"
        )
    root = missing.partition(".")[0]
    if not root or root == name.partition(".")[0]:
        return _broken(model, name, error)
    return SettingsError(f"model {model!r}: needs the package {root!r}: pip install {root}")
