"""Daft's ``@daft.cls``: python with_daft.py model.onnx FOLDER."""

import sys
from pathlib import Path

import daft

from lloss import Scorer


@daft.cls
class Losses:
    def __init__(self, model: str) -> None:
        self.scorer = Scorer(model, threads=1)

    @daft.method.batch(return_dtype=daft.DataType.float32())
    def of(self, images: daft.Series) -> list:
        return self.scorer({"image": images.to_pylist()})["loss"]  # type: ignore[no-any-return]


def losses(model: str, folder: str) -> dict[str, float]:
    paths = [str(path) for path in sorted(Path(folder).rglob("*.png"))]
    frame = daft.from_pydict({"image": paths})
    scored = frame.with_column("loss", Losses(model).of(daft.col("image"))).to_pydict()
    return dict(zip(scored["image"], scored["loss"]))


if __name__ == "__main__":
    print(losses(*sys.argv[1:]))
