"""A Polars frame of paths, with the predicted losses: python with_polars.py model.onnx FOLDER."""

import sys
from pathlib import Path

import polars as pl

from lloss import Scorer


def losses(model: str, folder: str) -> dict[str, float]:
    frame = pl.DataFrame({"image": [str(path) for path in sorted(Path(folder).rglob("*.png"))]})
    with Scorer(model) as scorer:
        found = scorer({"image": frame["image"]})["loss"]
    frame = frame.with_columns(loss=pl.Series(found))
    return dict(zip(frame["image"], frame["loss"]))


if __name__ == "__main__":
    print(losses(*sys.argv[1:]))
