"""A PyTorch DataLoader of encoded images: python with_dataloader.py model.onnx FOLDER."""

import sys
from pathlib import Path

from torch.utils.data import DataLoader

from lloss import Scorer


def collate(paths: list[Path]) -> dict[str, list]:
    return {"path": list(map(str, paths)), "image": [path.read_bytes() for path in paths]}


def losses(model: str, folder: str) -> dict[str, float]:
    paths = sorted(Path(folder).rglob("*.png"))
    loader = DataLoader(paths, batch_size=64, num_workers=1, collate_fn=collate)  # type: ignore
    with Scorer(model) as scorer:
        scored = map(scorer, loader)
        return {path: loss for each in scored for path, loss in zip(each["path"], each["loss"])}


if __name__ == "__main__":
    print(losses(*sys.argv[1:]))
