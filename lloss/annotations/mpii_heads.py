"""Head boxes that evaluation scripts of MPII keep in a MATLAB file beside the JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lloss.annotations.mpii import HEAD_SHARE
from lloss.annotations.problems import Problems


def head_sizes(path: Path, count: int, problems: Problems) -> list[float] | None:
    """The head sizes of ``gt_NAME.mat`` beside ``NAME.json``, in the order of its entries.

    Args:
        path: of the JSON.
        count: of its entries.
        problems: a file that does not fit goes there.

    Returns:
        0.6 of the diagonal of each of ``headboxes_src`` ``[2, 2, N]``, in pixels; None where there
        is no such file, or no SciPy to read it.
    """
    beside = path.with_name(f"gt_{path.stem}.mat")
    if not beside.is_file():
        return None
    try:
        from scipy.io import loadmat  # not worth a dependency
    except ImportError:
        return None
    try:
        boxes = np.asarray(loadmat(beside, variable_names=["headboxes_src"])["headboxes_src"])
    except Exception as error:  # the reader raises nearly anything on a broken file
        problems.report(str(beside), f"head boxes cannot be read: {error!r}")
        return None
    if boxes.shape != (2, 2, count):
        shape = f"headboxes_src of {list(boxes.shape)}"
        problems.report(str(beside), f"{shape}, not one box [2, 2] for each of {count} persons")
        return None
    sizes: list[float] = (HEAD_SHARE * np.linalg.norm(boxes[1] - boxes[0], axis=0)).tolist()
    return sizes
