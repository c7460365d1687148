"""What a model must pass before it serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import EngineError


def refuse_fall_back(scorer: Scorer, serving: Scorer | None, path: Path) -> None:
    """Where a GPU serves, ``auto`` must not load the next model on the CPU: the GPU was lost.

    int8 artifacts are for CPUs.

    Raises:
        EngineError: it would.
    """
    engine = scorer.engine
    if serving is None or not engine.on_host or engine.manifest.precision == "int8":
        return
    if not serving.engine.on_host:
        why = f" ({engine.note})" if engine.note else ""
        raise EngineError(
            f"{path}: would run on the CPU{why}, and the model that serves runs on "
            f"{serving.engine.device}; start the daemon again to go on by the CPU"
        )


def probe(scorer: Scorer, path: Path) -> None:
    """Score batches of several sizes, of black pictures and of noise.

    Raises:
        EngineError: an output is not finite, or not of the manifest's shape.
    """
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
                        "was its training sound?"
                    )
