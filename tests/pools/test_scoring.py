"""One set of images scored out of every kind of pool."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lloss import Scorer
from lloss.pools import open_pool


def test_the_scores_do_not_depend_on_where_images_lie(
    tmp_path: Path, photos: Path, artifact: Path
) -> None:
    contents = [bytes(item.read()) for item in open_pool(photos)]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for number, content in enumerate(contents):
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    pq.write_table(pa.table({"png": contents}), tmp_path / "t.parquet", row_group_size=16)
    pixels = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
    np.save(tmp_path / "a.npy", np.stack(pixels))
    scorer = Scorer(artifact, device="cpu")
    losses = {
        name: np.concatenate([part.loss for part in scorer.stream(str(uri))])
        for name, uri in {"folder": photos, **{p.name: p for p in tmp_path.iterdir()}}.items()
    }
    assert set(losses) == {"folder", "s.tar", "t.parquet", "a.npy"}
    for name, loss in losses.items():
        assert np.array_equal(loss, losses["folder"]), name
