"""Checks of a model before it serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import EngineError


def check_device(scorer: Scorer, serving: Scorer | None, path: Path) -> None:
    """Refuse a model (not int8) that runs on the CPU while another serves on a GPU: it was lost."""
    engine = scorer.engine
    if serving is None or not engine.on_host or engine.manifest.precision == "int8":
        return
    if not serving.engine.on_host:
        why = f" ({engine.note})" if engine.note else ""
        raise EngineError(
            f"{path}: would run on the CPU{why}, but the model that serves runs on "
            f"{serving.engine.device}; restart the daemon to continue on the CPU"
        )


def check_outputs(scorer: Scorer, path: Path) -> None:
    """Refuse outputs for batches of several sizes that are not finite or of the wrong shape."""
    image, most = scorer.manifest.image, scorer.batch_size
    noise = np.random.default_rng(0)
    for count in sorted({1, min(2, most), -(-most // 2), most}):
        shape = (count, image.height, image.width, 3)
        for pixels in (np.zeros(shape, np.uint8), noise.integers(0, 256, shape, np.uint8)):
            outputs = scorer.engine.run(pixels)
            for name, trailing in scorer.manifest.outputs.items():
                values = outputs[name]
                if values.shape != (count, *trailing):
                    raise EngineError(
                        f"{path}: gives {name} of shape {list(values.shape)} for {count} images, "
                        f"not {[count, *trailing]}; export it again"
                    )
                if not np.isfinite(values).all():
                    raise EngineError(
                        f"{path}: gives {name} that is not finite for a batch of {count}; "
                        "did its training diverge?"
                    )
