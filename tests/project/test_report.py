from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.images.thumbnail import thumbnail
from lloss.project.report import Pick, Report, write_report
from lloss.project.summary import Summary
from lloss.statistics.loss_unit import fit_unit
from lloss.text.markup import loss

from ..html_page import HtmlPage

HOSTILE = [
    "<script>alert(1)</script>",
    "a\n\"b'c&amp;",
    '"><img src=x onerror=alert(1)>',
    "undecodable \udc80, nul \x00",
    "gnp\u202e.exe",
    "x" * 5000,
]


def picks(count: int) -> list[Pick]:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return [
        Pick(f"digits/{row:04d}.png", row + 1, 4 - row / 100, "seven", 0.5, thumbnail(image))
        for row, image in enumerate(images)
    ]


def cycle(
    number: int,
    accuracy: float | None = None,
    head: float | None = None,
    entropy: float | None = 0.65,
    intervals: Sequence[tuple[float, float] | None] = (None, None, None),
) -> Summary:
    measured = {
        "accuracy": intervals[0],
        "head": {"ranking_accuracy": intervals[1]},
        "entropy": {"ranking_accuracy": intervals[2]},
    }
    figures = {
        "images": 360,
        "accuracy": accuracy,
        "head": {"ranking_accuracy": head},
        "entropy": {"ranking_accuracy": entropy},
        "intervals": measured,
    }
    return Summary(
        cycle=number, labeled=50 * number, selected=12, scored=1500, skipped=2,
        classes={"seven": 90, "eight": 60}, labels_sha256="", evaluation=figures,
        metric_name="accuracy",
    )  # fmt: skip


def history(cycles: int, **last: Any) -> list[Summary]:
    made = [cycle(n, 0.7 + n / 50, 0.6 + n / 50) for n in range(1, cycles + 1)]
    return [*made[:-1], replace(made[-1], **last)]


DATA = Report(
    project="digits",
    task="classification",
    model="small-cnn",
    metric="Accuracy",
    cycles=history(3),
    selected_how="The 12 images with the highest predicted loss.",
    losses=np.linspace(0, 4, 1500, dtype=np.float32),
    picks=picks(12),
    provenance={"model sha256": "9f2b"},
)


def written(data: Report, folder: Path) -> str:
    path = folder / "report.html"
    write_report(data, path)
    return path.read_text("utf-8")


def show(folder: Path, **changes: Any) -> HtmlPage:
    return HtmlPage(written(replace(DATA, **changes), folder))


def test_says_what_to_do_and_shows_every_figure(tmp_path: Path) -> None:
    page = show(tmp_path)
    assert "Label these 12 images next, then run lloss next again" in page.text
    assert "+50 since cycle 2" in page.text
    assert "+2.0 points since cycle 2" in page.text
    assert "2 more could not be read" in page.text
    assert "lowest pick 3.89" in page.text
    assert "entropy 65.0%" in page.text
    assert "9f2b" in page.text
    assert len(page.all("img")) == 12
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert len(page.all("svg")) == 3
    assert all(attrs["aria-label"] for attrs in page.all("svg"))
    ids = {attrs.get("id") for attrs in page.all("section")}
    assert {str(attrs["href"]).removeprefix("#") for attrs in page.all("a")} == ids


def test_is_one_file_that_asks_the_network_for_nothing(tmp_path: Path) -> None:
    source = written(DATA, tmp_path)
    page = HtmlPage(source)
    assert "http:" not in source and "https:" not in source and "url(" not in source
    assert {"script", "link", "iframe", "object"}.isdisjoint(name for name, _ in page.elements)
    assert all(str(attrs["src"]).startswith("data:image/") for attrs in page.all("img"))
    policy = str(page.all("meta")[1]["content"])
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert written(replace(DATA, picks=picks(12)), tmp_path) == source


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    plain = show(tmp_path)
    for name in HOSTILE:
        page = show(
            tmp_path,
            project=name,
            task=name,
            model=name,
            metric=name,
            cycles=history(
                3,
                metric_name=name,
                classes={name: 90, "eight": 60},
                evaluation={**(DATA.cycles[-1].evaluation or {}), name: 0.76},
            ),
            selected_how=name,
            picks=[replace(DATA.picks[0], id=name, guess=name), *DATA.picks[1:]],
            provenance={name: name},
        )
        assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
        assert [sorted(attrs) for _, attrs in page.elements] == [
            sorted(attrs) for _, attrs in plain.elements
        ]


def test_shows_what_cannot_be_seen_in_an_id(tmp_path: Path) -> None:
    pick = replace(DATA.picks[0], id="a\nb\udc80\u202ec \N{SNOWMAN} 日本")
    page = show(tmp_path, picks=[pick])
    assert "a\\nb\\udc80\\u202ec \N{SNOWMAN} 日本" in page.text
    assert "Label this image next" in page.text


def test_without_held_out_images_it_says_how_to_get_the_figures(tmp_path: Path) -> None:
    unmeasured = [replace(one, evaluation=None) for one in history(2)]
    page = show(tmp_path, cycles=unmeasured)
    assert "--test" in page.text and "--holdout" in page.text
    assert page.text.count("not measured") == 2
    assert len(page.all("svg")) == 1


def test_cycles_without_a_figure_to_compare_with_show_no_change(tmp_path: Path) -> None:
    first = show(tmp_path, cycles=history(1))
    assert "on 360 held-out images" in first.text and len(first.all("svg")) == 3
    unmeasured = [replace(cycle(1), evaluation=None), cycle(2, 0.8, None, float("nan"))]
    for page in (first, show(tmp_path, cycles=unmeasured)):
        assert "since cycle" not in page.text.replace("+50 since cycle 1", "")
        assert "nan" not in page.text


def test_any_losses_give_a_page(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    for values in ([], [nan], [nan, inf, 1.0], [0.0] * 9, [0.5], [-3e38, 3e38], [1e-30, 2e-30]):
        page = show(tmp_path, losses=np.array(values, np.float32))
        known = np.isfinite(np.array(values, np.float32)).any()
        assert ("No image has a predicted loss" in page.text) != known


def test_no_picks_and_nothing_labeled(tmp_path: Path) -> None:
    page = show(tmp_path, picks=[], cycles=history(3, classes={}), provenance={})
    assert "There is nothing left to label" in page.text and "No image is labeled" in page.text


def test_a_pick_without_thumbnail_or_guess_keeps_its_place(tmp_path: Path) -> None:
    bare = [replace(p, thumbnail=None, guess="", confidence=float("nan")) for p in DATA.picks]
    page = show(tmp_path, picks=bare)
    assert page.text.count("could not be read") == 12 + 1
    assert page.all("img") == []
    assert "digits/0011.png" in page.text and "nan" not in page.text


def test_a_long_selection_and_a_thousand_classes_stay_readable(tmp_path: Path) -> None:
    many = [Pick(f"row {row}", row + 1, 1.0, "", 0.0, None) for row in range(1234)]
    classes = {f"class {row}": row for row in range(1000)}
    page = show(tmp_path, picks=many, cycles=history(3, classes=classes))
    assert "1,034 more are in selected.csv" in page.text
    assert "row 199" in page.text and "row 200" not in page.text
    assert "970 more have 30 to 999 each" in page.text
    assert "class 29" in page.text and "class 30" not in page.text


def test_warnings_stand_at_the_top_and_notes_at_the_end(tmp_path: Path) -> None:
    few = "6 held-out images are too few"
    warnings = [few, HOSTILE[0]]
    cycles = history(3, warnings=warnings, notes=[*warnings, "fit crop cuts off 67%"], ranked=False)
    page = show(tmp_path, cycles=cycles)
    assert page.text.index(few) < page.text.index("labeled".title())
    assert HOSTILE[0][1:] in page.text
    assert page.text.index("Fit crop cuts off 67%.") > page.text.index("Images to label")
    assert [attrs["class"] for attrs in page.all("div") if attrs.get("role")] == ["banner"]
    plain = show(tmp_path)
    assert not any(attrs.get("id") == "notes" for attrs in plain.all("section"))
    assert not any(attrs.get("role") for attrs in plain.all("div"))


@pytest.mark.parametrize("better", [True, None, False])
def test_picks_that_are_not_shown_to_rank_are_not_called_ranked(
    tmp_path: Path, better: bool | None
) -> None:
    page = show(tmp_path, cycles=history(3, ranked=better))
    assert ("its number" if better is False else "with its rank") in page.text
    assert ("a score to rank by" in page.text) == (better is not False)


def test_figures_have_their_intervals_and_no_more_digits(tmp_path: Path) -> None:
    cycles = [
        cycle(1, 0.5, 0.6, 0.6, [(0.19, 0.81), (0.3, 0.8), None]),
        cycle(2, 0.67, 0.7, 0.61, [(0.3, 0.9), (0.5, 0.9), (0.4, 0.8)]),
    ]
    source = written(replace(DATA, cycles=cycles), tmp_path)
    page = HtmlPage(source)
    assert "+17 points since cycle 1, within the interval" in page.text
    assert "95% interval 30% to 90%" in page.text and "50% to 90%" in page.text
    assert "67.0%" not in page.text and "70.0%" not in page.text
    assert "entropy 61% (40% to 80%), chance 50%" in page.text
    assert "<td>61%</td><td>40% to 80%</td>" in source
    assert source.count('class="range"') == 2
    says = [str(attrs["aria-label"]) for attrs in page.all("svg")]
    assert "95% intervals 50: 19% to 81%, 100: 30% to 90%" in says[1]


def test_what_is_counted_and_held_back_is_named(tmp_path: Path) -> None:
    page = show(tmp_path, counted="Labeled objects per class", cycles=history(3, held_back=6))
    assert "Labeled objects per class" in page.text
    assert "Labeled images per class" not in page.text
    assert "6 more are held out" in page.text
    assert "held out" not in show(tmp_path).text


def test_the_predicted_losses_are_in_their_unit_with_the_true_ones_beside_them(
    tmp_path: Path,
) -> None:
    plain = show(tmp_path)
    assert "in no unit" in plain.text and "Predicted and true loss" not in plain.text
    scores = np.random.default_rng(0).normal(size=200)
    unit = fit_unit(scores, np.exp(scores), "nats")
    page = show(tmp_path, unit=unit)
    assert "a score to rank by, in nats" in page.text and "in no unit" not in page.text
    assert f"The predicted loss is {unit}. Of these images" in page.text
    cells = [cell for each in unit.calibration for cell in (loss(each.predicted), loss(each.true))]
    assert len(cells) == 20 and all(cell in page.text for cell in cells)


def test_a_ranking_measured_by_cross_validation_is_shown_without_held_out_images(
    tmp_path: Path,
) -> None:
    measured = {**(cycle(1, None, 0.71).evaluation or {}), "images": 90, "folds": 5}
    alone = replace(cycle(1), evaluation=None, cross_validation=measured)
    page = show(tmp_path, cycles=[alone])
    assert "71.0%" in page.text and "by cross-validation on 90 images" in page.text
    assert page.text.count("not measured") == 1 and "--holdout" not in page.text
    classifier = replace(alone, cross_validation={**measured, "accuracy": 0.83})
    both = show(tmp_path, cycles=[cycle(1, 0.8), replace(classifier, cycle=2)])
    assert "83.0%" in both.text and "not measured" not in both.text
    assert both.text.count("by cross-validation on 90 images") == 2
    # Labels of another cycle are not the same test set: no change, and no common curve
    assert "points since" not in both.text and "50: 80" not in str(both.all("svg"))
    few = replace(cycle(1, 0.5, 0.6), cross_validation=measured)  # of 360 held-out images
    assert "cross-validation" not in show(tmp_path, cycles=[few]).text


def test_trust_figures_have_a_section_and_columns(tmp_path: Path) -> None:
    trust: dict[str, Any] = {
        "payoff": {"lift": 1.56, "picks": 40, "interval": [1.1, 2.2]},
        "agreement": {"share": 0.91, "kappa": 0.9, "images": 500},
        "gain": {"labels": 50, "gain": 0.02, "interval": [0.0, 0.04], "now": 0.75},
    }
    lines = ["lift 1.56", HOSTILE[0]]
    cycles = [replace(one, trust=trust, trust_lines=lines) for one in history(3)]
    page = show(tmp_path, cycles=cycles)
    assert "Do the picks pay, and when to stop" in page.text and "Lift 1.56." in page.text
    assert page.text.count("91.0%") >= 3 and "1.56" in page.text
    says = [str(attrs["aria-label"]) for attrs in page.all("svg")]
    assert len(says) == 4 and "150: 75.0%, 200: 77.0%" in says[1]
    assert "1: 91.0%, 2: 91.0%, 3: 91.0%" in says[3]
    assert not any(attrs.get("id") == "trust" for attrs in show(tmp_path).all("section"))


def test_before_the_first_labels_no_model_is_described(tmp_path: Path) -> None:
    unscored = [
        replace(p, score=float("nan"), guess="", reason="adds 2 % coverage") for p in picks(3)
    ]
    first = replace(cycle(1), cycle=0, labeled=0, classes={}, evaluation=None)
    page = show(tmp_path, cycles=[first], picks=unscored, losses=np.empty(0, np.float32))
    assert "No model is trained before the first labels" in page.text
    assert "adds 2 % coverage" in page.text and "nan" not in page.text
    assert not page.all("svg") and "Images by predicted loss" not in page.text
    ids = {attrs.get("id") for attrs in page.all("section")}
    assert {str(attrs["href"]).removeprefix("#") for attrs in page.all("a")} == ids


def test_a_path_that_begins_a_note_keeps_its_letters(tmp_path: Path) -> None:
    notes = ["b/labels.csv: 2 of 50 images are copies", "few steps (9) for a network"]
    page = show(tmp_path, cycles=[*history(2), replace(history(3)[-1], notes=notes)])
    assert "b/labels.csv: 2 of 50 images" in page.text and "B/labels.csv" not in page.text
    assert "Few steps (9) for a network" in page.text
