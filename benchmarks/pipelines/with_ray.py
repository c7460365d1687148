"""Ray Data ``map_batches``, an actor for each scorer: python with_ray.py model.onnx FOLDER."""

import sys

import ray.data

from lloss import Scorer


def losses(model: str, folder: str) -> dict[str, float]:
    images = ray.data.read_binary_files(folder, include_paths=True, file_extensions=["png"])
    scored = images.rename_columns({"bytes": "image"}).map_batches(
        Scorer,
        fn_constructor_kwargs={"model": model, "threads": 1},
        batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    return {row["path"]: row["loss"] for row in scored.iter_rows()}


if __name__ == "__main__":
    print(losses(*sys.argv[1:]))
