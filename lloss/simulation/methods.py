"""Methods of active learning: how each trains, and by what it selects."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lloss.errors import SettingsError
from lloss.manifest import EMBEDDING
from lloss.selection import SelectionSettings, strategy_names
from lloss.selection.selection import BALANCED, PREDICTED
from lloss.selection.strategies import get_strategy
from lloss.tasks.train_settings import TrainSettings, check_kind
from lloss.text.similar_names import nearest

AUTO = "auto"
PROBABILITIES, BALD, TOD = "probabilities", "bald", "tod"
"""Columns that are computed only for methods that read them."""

STOP = 0.6
"""Share of the epochs after which the head's gradient stops, of joint training: the paper's."""

READ_OF_FROZEN = ("head", "head_loss", "head_summary", "hidden", "xi")
"""Training settings of a method that heads on a frozen network are trained by."""

UNREAD_OF_FROZEN = (
    "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "clip", "fresh_lr",
    "schedule", "milestones", "augment", "crop_padding", "head_weight", "gradient_stop", "amp",
    "freeze", "compile",
)  # fmt: skip
"""Training settings of whole networks, which heads on a frozen one do not read."""

_SHARED = ("task", "size", "fit", "share", "resample", "white", "seed")
"""Training settings that decide a trial's images and seeds, which its methods share."""

_BASELINE: Mapping[str, object] = {"head": False}
_PAPER: Mapping[str, object] = {"head_loss": "margin", "head_summary": False}


@dataclass(frozen=True)
class Method:
    """How to train, and by what to select.

    Attributes:
        name: for rows and tables.
        strategy: of :mod:`lloss.selection`; ``auto`` decides at each cycle.
        by: the column of scores.
        train: changes to the training settings; baselines train without the head.
        columns: computed for it besides the usual ones.
        order: which end of ``by`` comes first; "" for the column's own.
        subset: share of the unlabeled images to choose from; 0 for all.
        embedding: the column that distances are measured in; "" for the strategy's own choice.
        min_distance: of near-duplicates passed over; 0 for none.
        balance: the groups that picks are spread over: ``predicted``, or "".
        class_weight: ``balanced`` to let images of rare predicted classes weigh more, if the task
            predicts a class; or "".
        joint: whether the head's gradient reaches the network, for :data:`STOP` of the epochs.
    """

    name: str
    strategy: str
    by: str = "loss"
    train: Mapping[str, object] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    order: str = ""
    subset: float = 0.0
    embedding: str = ""
    min_distance: float = 0.0
    balance: str = ""
    class_weight: str = ""
    joint: bool = False

    @property
    def head(self) -> bool:
        """Whether it trains a head."""
        return bool(self.train.get("head", True))

    @property
    def choice(self) -> str:
        """What decides, in words."""
        if self.strategy != AUTO and not get_strategy(self.strategy).uses_scores:
            return self.strategy
        return f"{self.strategy} by {self.by}"

    @property
    def blind(self) -> bool:
        """Whether it selects by ids alone, so that nothing needs to be scored."""
        if self.strategy == AUTO or self.min_distance or self.balance:
            return False
        strategy = get_strategy(self.strategy)
        return not (strategy.uses_scores or strategy.vectors or strategy.scalars)

    def settings(self, shared: TrainSettings) -> TrainSettings:
        """Return the training settings, of those that all methods share."""
        changes: dict[str, Any] = dict(self.train)
        return dataclasses.replace(shared, **changes)

    def check(self, frozen: bool) -> None:
        """Refuse a change that would not change anything, with a ``SettingsError``."""
        ignored = [name for name in self.train if frozen and name not in READ_OF_FROZEN]
        if ignored:
            raise SettingsError(
                f"method {self.name!r}: heads on a frozen network are not trained by {ignored[0]} "
                f"(but by {', '.join(READ_OF_FROZEN)}); leave it out, or choose --full"
            )

    def selection(self, k: int, unlabeled: int, seed: int) -> SelectionSettings:
        """Return the settings of one selection."""
        names = ("order", "embedding", "min_distance", "balance", "class_weight")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return SelectionSettings(
            k=k,
            strategy=self.strategy,
            by="" if self.blind else self.by,
            subset=max(k, round(self.subset * unlabeled)) if self.subset else 0,
            seed=seed,
            **{name: value for name, value in given.items() if value},
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        values = {**dataclasses.asdict(self), "train": dict(self.train)}
        # Left out where they say nothing, so that experiments from before go on.
        later = ("min_distance", "balance", "class_weight")
        added = [name for name in later if not values[name]]
        return {name: value for name, value in values.items() if name not in added}


_ALL = (
    Method("random", "random", "entropy", _BASELINE),
    Method("least-confidence", "top", "confidence", _BASELINE),
    Method("margin", "top", "margin", _BASELINE),
    Method("entropy", "top", "entropy", _BASELINE),
    Method("core-set", "core-set", "entropy", _BASELINE),
    Method("badge", "badge", "entropy", _BASELINE, (PROBABILITIES,), embedding=EMBEDDING),
    Method("typiclust", "typiclust", "entropy", _BASELINE),
    Method("bald", "top", BALD, _BASELINE, (BALD,), order="highest"),
    Method("tod", "top", TOD, _BASELINE, (TOD,), order="highest"),
    Method("learning-loss", "top", "loss", _PAPER, joint=True),
    Method("learning-loss-mse", "top", "loss", {**_PAPER, "head_loss": "mse"}, joint=True),
    Method("random-k-center", "random-k-center", "entropy", _BASELINE),
    Method("top", "top"),
    Method("diverse", "diverse"),
    Method("herding", "herding"),
    Method("entropy-herding", "herding", "entropy", _BASELINE),
    Method("coverage", "coverage", "entropy", _BASELINE),
    Method("power", "power"),
    Method("loss-badge", "loss-badge"),
    Method(AUTO, AUTO, class_weight=BALANCED),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""The methods by the name that ``--methods`` takes."""

_FIELDS: Mapping[str, type] = {
    "strategy": str,
    "by": str,
    "order": str,
    "subset": float,
    "embedding": str,
    "min_distance": float,
    "balance": str,
    "class_weight": str,
}
_HINTS = typing.get_type_hints(TrainSettings)


def parse_methods(text: str) -> list[Method]:
    """Read names separated by commas, each with changes behind ``+``: ``herding+by=entropy``.

    A change is a field of :class:`.SelectionSettings` (``strategy``, ``by``, ``order``,
    ``embedding``, ``min_distance``, ``balance``, ``class_weight``; ``subset`` as a share) or of
    :class:`.TrainSettings`. Raises ``SettingsError`` for an unknown name or change, and for a
    strategy that is not installed.
    """
    methods = [_parsed(word.strip()) for word in text.split(",") if word.strip()]
    if not methods:
        raise SettingsError("methods: name at least one, such as random,herding")
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"methods: {twice!r} is named twice")
    return methods


def _parsed(text: str) -> Method:
    name, *changes = text.split("+")
    if name not in METHODS:
        near = nearest(name, METHODS)
        hint = f"did you mean {near!r}? All are" if near else "choose of"
        raise SettingsError(f"method {name!r}: unknown; {hint} {', '.join(METHODS)}")
    method = dataclasses.replace(METHODS[name], name=text)
    for change in changes:
        method = _changed(method, change)
    if method.strategy not in (*strategy_names(), AUTO):
        raise SettingsError(
            f"method {text!r}: there is no strategy {method.strategy!r}; choose one of "
            f"{', '.join(strategy_names())}"
        )
    automatic = method.strategy == AUTO
    if method.balance not in ("", PREDICTED):
        raise SettingsError(f"method {text!r}: balance {method.balance!r}: choose {PREDICTED}")
    if method.class_weight and not any(each.startswith("class_weight=") for each in changes):
        able = automatic or get_strategy(method.strategy).class_weighted
        if method.balance or not able:
            method = dataclasses.replace(method, class_weight="")  # a default gives way
    by_weights = dataclasses.replace(method, strategy="herding") if automatic else method
    by_weights.selection(1, 1, 0)  # refuses what a selection would
    by_scores = not automatic and get_strategy(method.strategy).uses_scores
    if not by_scores and any(change.startswith(("by=", "order=")) for change in changes):
        why = "decides by itself" if automatic else "picks by no scores"
        raise SettingsError(f"method {text!r}: {method.strategy} {why}; leave by and order out")
    if method.by == "loss" and not method.head:
        raise SettingsError(f"method {text!r}: reads the predicted loss without a head")
    return method


def _changed(method: Method, change: str) -> Method:
    key, equals, text = change.partition("=")
    if not equals or (key not in _FIELDS and key not in _HINTS):
        known = ", ".join(_FIELDS)
        raise SettingsError(
            f"method {method.name!r}: {change!r}: write KEY=VALUE, of {known}, or a setting of "
            "training"
        )
    if key in _SHARED:
        raise SettingsError(
            f"method {method.name!r}: all methods of a simulation share {key}; give --{key}"
        )
    if key in _FIELDS:
        value: Any = _value(text) if _FIELDS[key] is float else text
        check_kind(f"method {method.name!r}: {key}", value, _FIELDS[key])
        if key == "subset" and not 0 <= value < 1:
            raise SettingsError(f"method {method.name!r}: subset is a share, from 0 to below 1")
        changes: dict[str, Any] = {key: value}
        return dataclasses.replace(method, **changes)
    value = text if _HINTS[key] is str else _value(text)
    value = tuple(value) if isinstance(value, list) else value
    check_kind(f"method {method.name!r}: {key}", value, _HINTS[key])
    return dataclasses.replace(method, train={**method.train, key: value})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
