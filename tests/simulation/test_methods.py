from __future__ import annotations

from dataclasses import replace

import pytest

from lloss.errors import SettingsError
from lloss.selection import strategy_names
from lloss.simulation.methods import METHODS, Method, parse_methods
from lloss.tasks.train_settings import TrainSettings

THERE = [m for m in METHODS.values() if m.strategy in (*strategy_names(), "auto")]


def test_methods_are_read_by_name() -> None:
    assert parse_methods("random, entropy") == [METHODS["random"], METHODS["entropy"]]


@pytest.mark.parametrize("method", THERE, ids=lambda method: method.name)
def test_a_method_without_a_head_does_not_read_the_predicted_loss(method: Method) -> None:
    if not method.head:
        assert method.by != "loss"


@pytest.mark.parametrize(
    "name", ["random", "entropy", "margin", "bald", "tod", "core-set", "badge"]
)
def test_baselines_train_without_the_head(name: str) -> None:
    assert not METHODS[name].head


@pytest.mark.parametrize(
    ("name", "choice"),
    [("random", "random"), ("coverage", "coverage"), ("margin", "top by margin"),
     ("herding", "herding by loss"), ("entropy-herding", "herding by entropy")],
)  # fmt: skip
def test_a_choice_names_the_column_where_it_decides(name: str, choice: str) -> None:
    assert METHODS[name].choice == choice


def test_random_alone_needs_no_scores() -> None:
    assert [method.name for method in METHODS.values() if method.blind] == ["random"]
    assert METHODS["random"].selection(3, 10, 0).by == ""


def test_the_papers_way_is_joint_margin_pairs_without_a_summary() -> None:
    method = METHODS["learning-loss"]
    assert method.joint and (method.strategy, method.by) == ("top", "loss")
    assert method.train == {"head_loss": "margin", "head_summary": False}


def test_changes_stand_behind_a_plus() -> None:
    (method,) = parse_methods("herding+by=entropy+subset=0.5+hidden=64+head_loss=mse")
    assert method.name == "herding+by=entropy+subset=0.5+hidden=64+head_loss=mse"
    assert (method.strategy, method.by, method.subset) == ("herding", "entropy", 0.5)
    assert method.train == {"hidden": 64, "head_loss": "mse"}
    selection = method.selection(10, 100, seed=3)
    assert (selection.k, selection.subset, selection.seed) == (10, 50, 3)


def test_near_duplicates_and_groups_are_changes_too() -> None:
    plain, changed = parse_methods("herding,herding+min_distance=0.02+balance=predicted")
    selection = changed.selection(10, 100, seed=3)
    assert (selection.min_distance, selection.balance) == (0.02, "predicted")
    assert changed.as_dict()["balance"] == "predicted"
    weighing, soft = parse_methods("auto,coverage+class_weight=balanced")
    assert (weighing.class_weight, soft.selection(1, 9, 0).class_weight) == ("balanced",) * 2
    hard, top = parse_methods("auto+balance=predicted,auto+strategy=top")
    assert not (hard.class_weight or top.class_weight)  # a default gives way
    added = {"balance", "min_distance", "class_weight"}
    assert not added & plain.as_dict().keys()  # as experiments from before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name at least one"),
        ("random,random", "'random' is named twice"),
        ("herdin", "method 'herdin': unknown; did you mean 'herding'"),
        ("herding+nothing=1", "'nothing=1': write KEY=VALUE"),
        ("herding+by", "'by': write KEY=VALUE"),
        ("herding+subset=2", "subset is a share"),
        ("herding+min_distance=3", "give a cosine distance, from 0 to 2"),
        ("herding+balance=site", "balance 'site': choose predicted"),
        ("top+embedding=embedding", "top measures no likeness"),
        ("herding+subset=x", "subset = 'x': must be float"),
        ("herding+hidden=many", "hidden = 'many': must be int"),
        ("herding+strategy=best", "there is no strategy 'best'; choose one of"),
        ("herding+head=false", "reads the predicted loss without a head"),
    ],
)
def test_what_is_no_method_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_methods(text)


def test_what_a_method_changes_is_what_its_heads_are_trained_by() -> None:
    shared = TrainSettings(hidden=8, size=32)
    (method,) = parse_methods("herding+hidden=64+xi=0.5")
    method.check(frozen=True)
    assert method.settings(shared) == replace(shared, hidden=64, xi=0.5)
    (method,) = parse_methods("herding+epochs=5")
    method.check(frozen=False)
    with pytest.raises(SettingsError, match=r"'herding\+epochs=5': .* not trained by epochs"):
        method.check(frozen=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random+seed=3", "all methods of a simulation share seed; give --seed"),
        ("auto+by=entropy", "auto decides by itself; leave by and order out"),
        ("coverage+by=loss", "coverage picks by no scores; leave by and order out"),
    ],
)
def test_changes_that_would_change_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_methods(text)
