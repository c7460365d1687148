"""Hugging Face ``datasets.map``: python with_datasets.py model.onnx FOLDER."""

import sys
from pathlib import Path

from datasets import Dataset

from lloss import Scorer


def losses(model: str, folder: str) -> dict[str, float]:
    paths = sorted(Path(folder).rglob("*.png"))
    images = Dataset.from_dict({"path": list(map(str, paths)), "image": list(map(str, paths))})
    with Scorer(model) as scorer:
        scored = images.map(scorer, batched=True, batch_size=64, remove_columns=["image"])
    return dict(zip(scored["path"], scored["loss"]))


if __name__ == "__main__":
    print(losses(*sys.argv[1:]))
