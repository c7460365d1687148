"""State dicts as a start for a network."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.text.first_names import first_names

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Entries of training checkpoints that hold the network: of Lightning and many scripts."""

COUNTER = ".num_batches_tracked"  # Of batch norm: without effect, and missing in old files


@dataclass(frozen=True)
class Start:
    """What a network took over of a state dict."""

    weights: str  # their file or name
    taken: frozenset[str]  # names of the network's parameters and buffers that it took over
    left: tuple[str, ...]  # layers that took nothing over, or not all
    layers: int  # of the network: modules with parameters or buffers
    unused: int  # tensors of the state dict that belong to no layer of the network
    # Class names in the order of its outputs, where layers that depend on them were taken over
    classes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Say it in a line."""
        fresh = f"; fresh: {first_names(self.left, 4)}" if self.left else ""
        unused = f"; {self.unused} of its tensors are of no layer here" if self.unused else ""
        order = f"; its classes must be, in order: {first_names(self.classes)}"
        return (
            f"weights {self.weights}: {self.layers - len(self.left)} of {self.layers} layers taken "
            f"over{fresh}{unused}{order if self.classes else ''}"
        )


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read names and tensors of a PyTorch or safetensors file, or of a training checkpoint.

    Raises ``SettingsError`` for another file, and for one with more than one candidate.
    """
    content = _read(Path(path))
    if isinstance(content, dict) and {"format", "settings", "state"} <= content.keys():
        raise SettingsError(
            f"weights {path}: is a checkpoint of lloss train, not a state dict; lloss train starts "
            "from its run with --warm-start RUN"
        )
    while isinstance(content, dict) and not _is_state(content):
        inside = [name for name in WRAPPERS if isinstance(content.get(name), dict)]
        if len(inside) != 1:
            break
        content = content[inside[0]]
    if isinstance(content, dict) and _is_state(content):
        return content
    raise SettingsError(
        f"weights {path}: not a state dict (names and tensors), nor a checkpoint with one under "
        f"{', '.join(WRAPPERS)} alone; write it with torch.save(network.state_dict(), {path!r})"
    )


def _is_state(content: dict[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SettingsError(f"weights {path}: no such file") from error
    except SettingsError:
        raise
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path):  # torch.save writes one
            raise SettingsError(f"weights {path}: not a readable state dict") from error
        raise SettingsError(
            f"weights {path}: holds Python objects besides tensors, which could run any code; "
            f"write the tensors alone, with torch.save(network.state_dict(), {str(path)!r})"
        ) from error
    except Exception as error:  # a foreign file fails in any way it likes
        raise SettingsError(f"weights {path}: not a readable state dict") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise SettingsError(
            f"weights {path}: needs the package safetensors: pip install safetensors"
        ) from error
    return dict(load_file(path))


def start_from(
    network: nn.Module,
    state: Mapping[str, Tensor],
    weights: str,
    name: str,
    fresh: Collection[str],
    part: str = "",
) -> Start:
    """Take over a state dict; only the layers ``fresh`` may be missing or of another shape.

    All names may have one prefix, as ``module.`` or ``model.``, which is found. The state dict is
    of the submodule ``part``; ``weights`` and ``name`` are those of file and network, for the
    ``SettingsError`` where they do not fit.
    """
    within = part + "." if part else ""
    whole = network.state_dict()
    own = {key.removeprefix(within): v for key, v in whole.items() if key.startswith(within)}
    needed = [key for key in own if layer_of(within + key) not in fresh]
    needed = [key for key in needed if not key.endswith(COUNTER)]
    prefix = _prefix(state, needed, weights, name)
    found = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    fitting = {k: v for k, v in found.items() if k in own and v.shape == own[k].shape}
    if bad := _layers(key for key in needed if key not in fitting):
        raise SettingsError(
            f"weights {weights}: do not fit {name} (they differ in {len(bad)} layers, "
            f"{bad[0]!r} among them)"
        )
    network.get_submodule(part).load_state_dict(fitting, strict=False)
    taken = frozenset(within + key for key in fitting)
    left = _layers(key for key in whole if key not in taken and not key.endswith(COUNTER))
    unused = len(state) - sum(key in own for key in found)
    return Start(weights, taken, tuple(left), len(_layers(whole)), unused)


def _prefix(state: Mapping[str, Tensor], needed: Sequence[str], weights: str, name: str) -> str:
    """Return what precedes every name of the network in a state dict: nothing, or ``model.``.

    The choice is refused where several copies of the network have each a prefix.
    """
    if not needed or needed[0] in state:
        return ""
    first = needed[0]
    before = [key[: -len(first)] for key in state if key.endswith("." + first)]
    whole = [prefix for prefix in before if all(prefix + key in state for key in needed)]
    if len(whole) > 1:
        raise SettingsError(
            f"weights {weights}: hold {name} {len(whole)} times, under {first_names(whole, 4)}; "
            "write the one to start from into a file of its own"
        )
    return whole[0] if whole else before[0] if len(before) == 1 else ""


def layer_of(key: str) -> str:
    """Return the module that a parameter or buffer of this name belongs to."""
    return key.rpartition(".")[0]


def _layers(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(layer_of, keys)))
