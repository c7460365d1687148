"""Which settings of a project's choice no cycle could use: refused before anything is trained."""

from __future__ import annotations

from lloss.errors import SettingsError
from lloss.selection.automatic import AUTO
from lloss.selection.selection import BALANCED, ORDER_OF, PREDICTED
from lloss.selection.strategies import get_strategy
from lloss.selection.strategies.badge import PROBABILITIES
from lloss.tasks.task import Task

SIMULATED = ("bald", "tod")
"""Columns of simulations alone."""

BY = (AUTO, *(name for name in ORDER_OF if name not in SIMULATED))
"""What a project can choose by."""


def check_choice(task: Task, strategy: str, by: str, balance: str, metadata: str) -> None:
    """Raise ``SettingsError`` for a value that no cycle's scores could serve."""
    if by not in BY:
        where = " only lloss simulate measures it;" if by in SIMULATED else ""
        raise SettingsError(f"by = {by!r}:{where} choose one of {', '.join(BY)}")
    if PROBABILITIES in get_strategy(strategy).vectors:
        raise SettingsError(
            f"strategy = {strategy!r}: needs the column {PROBABILITIES}, which no cycle's scores "
            "have; choose another, such as loss-badge"
        )
    if balance == PREDICTED and task.predicts_class is False:
        raise SettingsError(
            f"balance = {balance!r}: {task.name} predicts no class of a whole image; balance by a "
            "column of metadata, or leave it out"
        )
    if balance and balance != PREDICTED and not metadata:
        raise SettingsError(
            f"balance = {balance!r}: give metadata, a CSV or Parquet with the columns id and "
            f"{balance}"
        )
    if metadata and balance in ("", PREDICTED):
        given = f"balance = {balance!r}" if balance else "no balance"
        raise SettingsError(
            f"metadata = {metadata!r} with {given}: name one of its columns in balance"
        )


def check_class_weight(task: Task, class_weight: str) -> None:
    """Raise ``SettingsError`` for weights of classes that a task does not predict."""
    if class_weight and task.predicts_class is False:
        raise SettingsError(
            f"class_weight = {class_weight!r}: {task.name} predicts no class of a whole image; "
            "leave it out"
        )


def usual_class_weight(task: Task, strategy: str, balance: str) -> str:
    """Return the ``class_weight`` of a new project: ``balanced`` where that can be served."""
    weighs = get_strategy(strategy).class_weighted and task.predicts_class
    return BALANCED if weighs and balance != PREDICTED else ""
