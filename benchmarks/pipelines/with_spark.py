"""PySpark ``mapInPandas``: python with_spark.py model.onnx FOLDER."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

from lloss import Scorer


def losses(model: str, folder: str) -> dict[str, float]:
    def score(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        with Scorer(model, threads=1) as scorer:  # once for each partition
            for frame in frames:
                yield frame.assign(loss=scorer(frame)["loss"])

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the python3 of PATH
    spark = SparkSession.builder.master("local[1]").getOrCreate()
    paths = [(str(path),) for path in sorted(Path(folder).rglob("*.png"))]
    scored = spark.createDataFrame(paths, "image string")
    rows = scored.mapInPandas(score, "image string, loss float").collect()
    return {row["image"]: row["loss"] for row in rows}


if __name__ == "__main__":
    print(losses(*sys.argv[1:]))
