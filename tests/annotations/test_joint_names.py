"""Joints by name."""

from __future__ import annotations

from lloss.annotations.joint_names import COCO, MPII, flip_pairs, skeleton, without_mirror


def test_flip_pairs_of_mpii_and_coco() -> None:
    # As in Newell's data set: 0-5, 1-4, 2-3 of the legs, 10-15, 11-14, 12-13 of the arms.
    assert flip_pairs(MPII) == ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13))
    assert flip_pairs(COCO) == tuple((n, n + 1) for n in range(1, 17, 2))


def test_flip_pairs_of_other_names() -> None:
    assert flip_pairs(["Left Eye", "nose", "Right Eye", "tail_l", "tail_r", "lip"]) == (
        (0, 2), (3, 4),
    )  # fmt: skip
    assert flip_pairs(["left", "top"]) == ()


def test_skeletons_are_their_own_mirror_images() -> None:
    for names, count in ((MPII, 15), (COCO, 16)):
        swap = dict(flip_pairs(names)) | {b: a for a, b in flip_pairs(names)}
        limbs = {frozenset(limb) for limb in skeleton(names)}
        assert {frozenset(swap.get(j, j) for j in limb) for limb in limbs} == limbs
        assert len(limbs) == len(skeleton(names)) == count


def test_what_skeletons_join() -> None:
    named = {(MPII[a], MPII[b]) for a, b in skeleton(MPII)}
    assert ("r-ankle", "r-knee") in named
    assert ("upper-neck", "head-top") in named
    assert not {"pelvis", "thorax"} & {name for limb in named for name in limb}
    assert ("left_elbow", "left_wrist") in {(COCO[a], COCO[b]) for a, b in skeleton(COCO)}
    assert skeleton(["a", "b"]) == ()


def test_joints_of_one_side_whose_other_is_not_named() -> None:
    assert without_mirror(MPII) == (False,) * 16 and without_mirror(COCO) == (False,) * 17
    assert without_mirror(["L-hip", "nose", "r_eye", "l-Hip", "tail"]) == (
        True, False, True, True, False,
    )  # fmt: skip
    assert without_mirror(["L-hip", "r-hip"]) == (False, False)
