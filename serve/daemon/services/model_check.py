"""Checks of a model before it serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lloss.serve.scoring.scorer import Scorer
from numpy.typing import NDArray

from lloss.errors import EngineError


def check_model(scorer: Scorer, serving: Scorer | None, path: Path) -> None:
    """Refuse a model whose outputs are not finite or of the wrong shape.

    Also one that runs on the CPU, unless it is int8, while ``serving`` runs on a GPU: it was lost.
    """
    engine = scorer.engine
    lost = serving is not None and engine.on_host and not serving.engine.on_host
    if serving is not None and lost and engine.manifest.precision != "int8":
        why = f" ({engine.note})" if engine.note else ""
        raise EngineError(
            f"{path}: would run on the CPU{why}, but the model that serves runs on "
            f"{serving.engine.device}; restart the daemon to continue on the CPU"
        )
    image, most = scorer.manifest.image, scorer.batch_size
    noise = np.random.default_rng(0)
    for count in sorted({1, min(2, most), -(-most // 2), most}):
        shape = (count, image.height, image.width, 3)
        for pixels in (np.zeros(shape, np.uint8), noise.integers(0, 256, shape, np.uint8)):
            outputs = engine.run(pixels)
            for name, trailing in scorer.manifest.outputs.items():
                _check_output(name, outputs[name], (count, *trailing), path)


def _check_output(
    name: str, values: NDArray[np.float32], shape: tuple[int, ...], path: Path
) -> None:
    if values.shape != shape:
        raise EngineError(
            f"{path}: gives {name} of shape {list(values.shape)} for {shape[0]} images, "
            f"not {list(shape)}; export it again"
        )
    if not np.isfinite(values).all():
        raise EngineError(
            f"{path}: gives {name} that is not finite for a batch of {shape[0]}; "
            "did its training diverge?"
        )
