"""Rows as a simulation writes them, of learning curves that are written out here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lloss.simulation.results import CycleRow

METRIC = "macro accuracy"


def curve(gain: float, trial: int, cycles: int, noise: float, seed: int) -> list[float]:
    """Accuracies that rise from .4; what a trial has in common is large, its own part small."""
    common = np.random.default_rng([trial, 1]).normal(0, 0.02)
    own = np.random.default_rng([trial, seed, 2]).normal(0, noise, cycles)
    rise = 0.3 * (1 - np.exp(-np.arange(cycles) / 2))
    extra = gain * np.arange(cycles) / max(cycles - 1, 1)
    return (0.4 + common + rise + extra + own * (np.arange(cycles) > 0)).clip(0, 1).tolist()


def rows(
    gains: Mapping[str, Mapping[str, float]],
    trials: int = 10,
    cycles: int = 6,
    noise: float = 0.01,
    rare: str = "truck",
) -> list[CycleRow]:
    """``gains`` are of the last cycle: scenario → method → gain over .4 + .3."""
    found = []
    for scenario, methods in gains.items():
        for seed, (method, gain) in enumerate(methods.items()):
            for trial in range(trials):
                for cycle, value in enumerate(curve(gain, trial, cycles, noise, seed)):
                    last = cycle == cycles - 1
                    headless = method in ("random", "entropy")
                    found.append(CycleRow(
                        scenario=scenario, method=method, trial=trial, cycle=cycle,
                        labeled=100 + 100 * cycle,
                        figures={METRIC: value, "worst class": value / 2,
                                 f"recall of {rare}": value / 3, f"count of {rare}": 3.0 * cycle},
                        head=None if headless else {"ranking_accuracy": 0.62, "spearman": 0.4},
                        entropy={"ranking_accuracy": 0.66, "spearman": 0.5},
                        picks={} if last else {"duplicates": 0.1, "junk": 0.3, "rare": 3.0},
                        choice=_choice(method, cycle),
                        seconds={"train": 1.5, "measure": 0.1}
                        | ({} if last else {"score": 0.25, "select": 0.02}),
                    ))  # fmt: skip
    return found


def _choice(method: str, cycle: int) -> str:
    if method != "auto":
        return method
    reason = "the predicted loss ranks held-out images no better than chance"
    return "herding by loss" if cycle else f"coverage: {reason}"


def write(
    out: Path, found: Sequence[CycleRow], trials: Any = 10, cycles: int = 6, **changes: Any
) -> Path:
    """Write a simulation's folder."""
    out.mkdir(parents=True, exist_ok=True)
    methods = list(dict.fromkeys(row.method for row in found))
    scenarios = list(dict.fromkeys(row.scenario for row in found))
    settings = {
        "metric": METRIC, "metrics": dict.fromkeys(scenarios, METRIC), "methods": methods,
        "scenarios": scenarios, "trials": trials, "initial": 100, "k": 100, "cycles": cycles,
        "reference": "random" if "random" in methods else "",
        "default": next((m for m in ("auto", "herding") if m in methods), ""),
        "data": "photos", "task": "classification", "model": "efficientnet_lite0",
        "learner": "frozen", "version": "0.1.0", "seed": 0, **changes,
    }  # fmt: skip
    (out / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    lines = "".join(row.line() for row in found)
    (out / "results.jsonl").write_text(lines, encoding="utf-8")
    return out
