"""What a simulation leaves in its folder: settings, a row per cycle, and the picks of each.

``settings.json`` is written before the first trial and fixes the experiment; only the number of
trials can be raised later, and the file keeps what it was. ``results.jsonl`` has
a line per finished cycle; ``picks.jsonl`` the ids that were picked behind it, from which an
interrupted trial goes on. A line is appended whole, and a torn last line, of a machine that failed,
is taken away before more is written. No torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lloss.errors import LlossError
from lloss.files import write_error, write_json
from lloss.selection.automatic import Round

RESULTS = "results.jsonl"
PICKS = "picks.jsonl"
SETTINGS = "settings.json"
EXTENDED = "extended"
"""In the settings: the numbers of trials before each time that some were added."""

CONTENTS = {
    "labels_sha256": "labels in DATA",
    "images_sha256": "images in DATA",
    "test_sha256": "labels of --test",
    "test_images_sha256": "images of --test",
    "weights_sha256": "weights in the file of --weights",
}
"""Settings that are digests, and what of."""

TrialKey = tuple[str, str, int]
"""Scenario, method and number of a trial."""


class SimulationError(LlossError):
    """A simulation's folder that cannot be read or continued."""


@dataclass(frozen=True)
class CycleRow:
    """One finished cycle of a trial.

    Attributes:
        scenario: as ``--scenario`` takes it.
        method: its name.
        trial: from 0; all methods of a trial share the initial set, the seeds and the test set.
        cycle: from 0; cycle 0 is trained on the initial set.
        labeled: labels spent so far, also on images that the oracle refused.
        figures: on the test set, the scenario's metric first; greater is better. Figures that are
            undefined are left out.
        head: ``ranking_accuracy`` and ``spearman`` of the predicted loss with the true one on the
            test set; None without a head.
        entropy: the same of the network's entropy; None where the task has none.
        picks: of the images picked behind this cycle: ``duplicates`` and ``junk`` (shares),
            ``rare`` (count), and of ``auto`` the :class:`.Lift`; empty in the last cycle, which
            picks none.
        choice: what decided; of ``auto`` also the reason, after ``": "``.
        seconds: by stage: ``train``, ``measure``, ``score``, ``select``.
    """

    scenario: str
    method: str
    trial: int
    cycle: int
    labeled: int
    figures: dict[str, float]
    head: dict[str, float] | None
    entropy: dict[str, float] | None
    picks: dict[str, float] = field(default_factory=dict)
    choice: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> TrialKey:
        """The trial that it belongs to."""
        return self.scenario, self.method, self.trial

    def line(self) -> str:
        """Return it as a line of JSON; NaN and infinite figures are left out."""
        values = {
            name: _finite(value) if isinstance(value, dict) else value
            for name, value in asdict(self).items()
        }
        return json.dumps(values, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Picks:
    """The ids picked behind a cycle, in the order picked.

    ``lift`` is of the picks of ``auto`` that had weights: the :data:`.Round` that its next choices
    know.
    """

    scenario: str
    method: str
    trial: int
    cycle: int
    ids: tuple[str, ...]
    lift: Round | None = None

    @property
    def key(self) -> TrialKey:
        """The trial that they belong to."""
        return self.scenario, self.method, self.trial

    def line(self) -> str:
        """Return it as a line of JSON."""
        values = asdict(self)
        if self.lift is None:
            del values["lift"]
        return json.dumps(values, ensure_ascii=False) + "\n"


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def read_rows(out: Path) -> list[CycleRow]:
    """Read ``results.jsonl``, without a torn last line; SimulationError for a damaged one."""
    rows = (CycleRow(**row) for row in _read(out / RESULTS, CycleRow))
    return list({(row.key, row.cycle): row for row in rows}.values())


def read_picks(out: Path) -> list[Picks]:
    """Read ``picks.jsonl``, without a torn last line; SimulationError for a damaged one."""
    rows = list[Picks]()
    for values in _read(out / PICKS, Picks):
        values |= {name: tuple(values[name]) for name in ("ids", "lift") if name in values}
        rows.append(Picks(**values))
    return list({(row.key, row.cycle): row for row in rows}.values())


def read_settings(out: Path) -> dict[str, Any]:
    """Read ``settings.json``; SimulationError where it is missing or damaged."""
    path = out / SETTINGS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
        extended = content.get(EXTENDED, [])
        if not isinstance(extended, list) or not all(type(count) is int for count in extended):
            raise ValueError(EXTENDED)
    except FileNotFoundError as error:
        raise SimulationError(
            f"{out}: holds no simulation ({SETTINGS} is missing); make one with lloss simulate "
            f"DATA -o {out}"
        ) from error
    except (OSError, ValueError) as error:
        raise SimulationError(f"{path}: is damaged; simulate again into another folder") from error
    return content


def fix_settings(out: Path, settings: dict[str, Any], extend: bool = False) -> int:
    """Write ``settings.json``, or compare with what is there: one folder, one experiment.

    A folder without a finished cycle, of a simulation that could not begin, takes any experiment.
    ``extend`` lets the number of trials grow, and nothing else. Returns how many were planned
    before they were added; 0 where none were.

    Raises SimulationError, which names the first difference: another version of lloss, whose trials
    may differ, files of other content under the same name, or another setting.
    """
    settings = json.loads(json.dumps(settings))  # as it will be read: tuples are lists
    if not read_rows(out):
        (out / PICKS).unlink(missing_ok=True)  # of a cycle that was not finished
        write_json(out / SETTINGS, settings)
        return 0
    if not (out / SETTINGS).exists():
        raise SimulationError(f"{out}: has results without {SETTINGS}; choose another folder")
    before = read_settings(out)
    _refuse_version(out, before, settings)
    planned, now = before.get("trials"), settings.get("trials")
    more = extend and isinstance(planned, int) and isinstance(now, int) and now > planned
    known = {name: value for name, value in before.items() if name != EXTENDED}
    if found := _difference(known | {"trials": now} if more else known, settings):
        raise _other_experiment(out, *found)
    if not isinstance(planned, int) or not more:
        return 0
    extended = [*before.get(EXTENDED, ()), planned]
    write_json(out / SETTINGS, {**before, "trials": now, EXTENDED: extended})
    return planned


def _other_experiment(out: Path, name: str, old: Any, new: Any) -> SimulationError:
    if name in CONTENTS:
        return SimulationError(
            f"{out}: was begun with other {CONTENTS[name]} than those there now; restore them "
            "to continue it, or simulate into another folder"
        )
    return SimulationError(
        f"{out}: holds a simulation with {name} = {json.dumps(old)}, not {json.dumps(new)}; "
        "give the same settings to continue it (a larger --trials adds some), or another folder"
    )


def _refuse_version(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to add trials of one version of lloss to those of another."""
    then, now = ((each.get("version"), each.get("format")) for each in (old, new))
    if then != now:
        raise SimulationError(
            f"{out}: was begun by lloss {then[0]} (format {then[1]}), and this is {now[0]} (format "
            f"{now[1]}), whose trials may differ; continue with that version, or simulate into "
            "another folder (--report-only reports on what is there)"
        )


def _difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Find the first setting that differs; an earlier version lacked some."""
    for name, value in old.items():
        other = new.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            if found := _difference(value, other):
                return f"{name}.{found[0]}", *found[1:]
        elif value != other:
            return name, value, other
    return None


class ResultsWriter:
    """Appends finished cycles; one process at a time writes to a folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        for name in (RESULTS, PICKS):
            _cut_torn_line(out / name)

    def write(self, row: CycleRow, picks: Picks | None) -> None:
        """Append a cycle: its picks first, so that a row's picks are always there."""
        if picks is not None:
            _append(self.out / PICKS, picks.line())
        _append(self.out / RESULTS, row.line())


def _append(path: Path, line: str) -> None:
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line.encode("utf-8", "surrogateescape"))
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(error, path) from error


def _cut_torn_line(path: Path) -> None:
    try:
        with path.open("r+b") as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            if end < len(content):
                file.truncate(end)
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(error, path) from error


def _read(path: Path, kind: type[CycleRow | Picks]) -> Iterator[dict[str, Any]]:
    known = {each.name for each in fields(kind)}
    needed = {each.name for each in fields(kind) if each.default is each.default_factory is MISSING}
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise SimulationError(f"{path}: cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(lines[:-1], 1):  # behind the last line break: torn, or nothing
        try:
            row = json.loads(line.decode("utf-8", "surrogateescape"))
            if row.keys() - known or needed - row.keys():
                raise ValueError("other fields")
        except (ValueError, AttributeError) as error:
            raise SimulationError(
                f"{path}: line {number} is damaged; remove the line, and run the same command to "
                "compute its cycle again"
            ) from error
        yield row
