"""State dicts from files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lloss.errors import SettingsError


def read_state_dict(weights: str) -> dict[str, Tensor]:
    """Read a state dict that ``torch.save`` wrote.

    Raises:
        SettingsError: there is no such file, or it holds something else.
    """
    try:
        state = torch.load(Path(weights), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SettingsError(f"weights {weights}: no such file") from error
    except Exception as error:  # unpickling fails in many ways
        raise SettingsError(f"weights {weights}: not a readable state dict") from error
    if not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise SettingsError(f"weights {weights}: not a state dict (names and tensors)")
    return state
