from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lloss.errors import SettingsError
from lloss.simulation.image_variants import JUNK
from lloss.simulation.scenarios import Source, TrialPool, parse_scenario, parse_scenarios

NAMES = tuple(f"c{number}" for number in range(5))


def _source(count: int = 1000) -> Source:
    classes = np.arange(count) % 5
    return Source(
        [f"image {row}" for row in range(count)], [NAMES[c] for c in classes], classes, NAMES,
        "accuracy",
    )  # fmt: skip


def _drawn(text: str, size: int = 300, seed: int = 1, count: int = 1000) -> TrialPool:
    scenario, source = parse_scenario(text), _source(count)
    scenario.check(source, "classification")
    pool = scenario.draw(source, size, seed, shared=7)
    assert len(pool.ids) == len(set(pool.ids)) == len(pool.rows) == len(pool.labels)
    return pool


EVERY = ("balanced", "long-tail:50", "rare:c2:1%", "redundant:8", "junk:30%", "noise:10%")


@pytest.mark.parametrize("text", EVERY)
def test_a_pool_has_the_size_asked_for_and_depends_on_the_seed_alone(text: str) -> None:
    one, same, other = _drawn(text), _drawn(text), _drawn(text, seed=2)
    assert len(one.ids) == 300
    assert (one.ids, one.labels) == (same.ids, same.labels)
    assert one.ids != other.ids


def test_balanced_is_a_random_part_of_the_data() -> None:
    pool = _drawn("balanced")
    assert [f"image {row}" for row in pool.rows] == pool.ids
    assert pool.labels == [NAMES[row % 5] for row in pool.rows]


def test_a_long_tail_falls_by_the_ratio_from_class_to_class() -> None:
    counts = sorted(Counter(_drawn("long-tail:50", 250).labels).values(), reverse=True)
    shares = 50.0 ** (-np.arange(5) / 4)
    assert np.abs(counts - shares / shares.sum() * 250).max() <= 1
    assert sum(counts) == 250
    orders = {max(c := Counter(_drawn("long-tail:50", 250, s).labels), key=c.get) for s in range(9)}
    assert len(orders) > 1  # the trial draws which class is the largest


def test_a_long_tail_of_all_images_takes_all_of_the_largest_class() -> None:
    counts = Counter(_drawn("long-tail:50", 0).labels)
    assert 195 <= max(counts.values()) <= 200 and min(counts.values()) == 4


def test_a_rare_class_has_its_share() -> None:
    pool = _drawn("rare:c2:1%")
    assert pool.labels.count("c2") == 3 and pool.watched == "c2"


def test_redundant_has_every_jitter_of_few_images() -> None:
    pool = _drawn("redundant:8")
    assert set(Counter(pool.rows.tolist()).values()) == {4, 8}
    assert Counter(pool.variants.tolist()) == {n: 38 if n <= 4 else 37 for n in range(1, 9)}


def test_trials_make_jitters_of_twice_the_images_of_a_trial() -> None:
    rows = {int(row) for seed in range(30) for row in _drawn("redundant:8", seed=seed).rows}
    assert len(rows) == 76


def test_junk_is_made_of_other_images_than_the_pool_shows() -> None:
    pool = _drawn("junk:30%")
    assert pool.junk.sum() == 90 and (pool.variants[pool.junk] == JUNK).all()
    assert not set(pool.rows[pool.junk]) & set(pool.rows[~pool.junk])


def test_noise_changes_labels_of_a_share_of_the_pool() -> None:
    pool = _drawn("noise:10%")
    wrong = [label != NAMES[row % 5] for label, row in zip(pool.labels, pool.rows)]
    assert sum(wrong) == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("long", "scenario 'long': write one of balanced, long-tail:50, rare:CLASS:0.5%"),
        ("balanced:3", "write one of"),
        ("long-tail:x", "write a number from 2 on"),
        ("redundant:1", "write a number from 2 on"),
        ("junk:30", "write a share between 0% and 100%"),
        ("junk:100%", "a share is between 0% and 100%"),
        ("rare:5%", "write rare:CLASS:SHARE"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_scenario(text)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("balanced", 2000, "needs 2000 images to draw of, and there are 1000"),
        ("long-tail:50", 900, "takes .* images of 'c.', and there are 200; lower --pool-size"),
        ("long-tail:50", 20, "no image of the rarest class; raise --pool-size"),
        ("rare:c2:0.1%", 400, "0.100% of a pool of 400 is less than an image"),
        ("rare:c2:90%", 400, "needs 360 images to draw of, and there are 200"),
        ("junk:50%", 2000, "lower --pool-size"),
        ("rare:d2:1%", 400, "no image is of the class 'd2'; did you mean 'c2'"),
    ],
)
def test_pools_that_the_data_does_not_give_are_refused(text: str, size: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _drawn(text, size)


def test_scenarios_of_classes_are_refused_where_an_image_has_none() -> None:
    source = Source(["a"], [None], None, ("x",), "mAP")
    for text in EVERY:
        scenario = parse_scenario(text)
        if scenario.of_classes:
            with pytest.raises(SettingsError, match="one class an image, which detection has not"):
                scenario.check(source, "detection")
        else:
            scenario.check(source, "detection")


def test_jitters_of_persons_are_refused() -> None:
    source = Source(["a"], [None], None, ("x",), "pck")
    with pytest.raises(SettingsError, match="persons are cut out of images"):
        parse_scenario("redundant:2").check(source, "pose")


def test_the_metric_counts_classes_alike_where_the_pool_does_not() -> None:
    found = {text: parse_scenario(text).metric(_source()) for text in EVERY}
    macro = {"long-tail:50", "rare:c2:1%"}
    assert {text for text, metric in found.items() if metric == "macro accuracy"} == macro
    assert {found[text] for text in EVERY if text not in macro} == {"accuracy"}


@pytest.mark.parametrize("text", ["", " , ", "balanced,balanced"])
def test_each_scenario_is_named_once(text: str) -> None:
    with pytest.raises(SettingsError, match="name one or several, each once"):
        parse_scenarios(text)
