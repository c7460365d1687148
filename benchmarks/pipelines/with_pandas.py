"""A pandas frame of paths, with the predicted losses: python with_pandas.py model.onnx FOLDER."""

import sys
from pathlib import Path

import pandas as pd

from lloss import Scorer


def losses(model: str, folder: str) -> dict[str, float]:
    frame = pd.DataFrame({"image": [str(path) for path in sorted(Path(folder).rglob("*.png"))]})
    with Scorer(model) as scorer:
        frame["loss"] = scorer(frame)["loss"]
    return dict(zip(frame["image"], frame["loss"]))


if __name__ == "__main__":
    print(losses(*sys.argv[1:]))
