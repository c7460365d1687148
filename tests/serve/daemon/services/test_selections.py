"""Who has which image: nobody twice, the same again for the same key, until it expires."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.errors import RequestError, status_of
from lloss.serve.daemon.services.selections import SelectionRequest
from lloss.serve.daemon.store import database
from lloss.serve.daemon.store.records import Counts

from lloss.errors import LlossError, SelectionError
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import SelectionSettings

from ....waiting import PATIENCE


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass, for the catalog alone."""
    passed = 0.0
    at, steady = time.time, time.monotonic
    monkeypatch.setattr(database.time, "time", lambda: at() + passed)
    monkeypatch.setattr(database.time, "monotonic", lambda: steady() + passed)

    def wait(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    return wait


def refused(act: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(LlossError) as error:
        act()
    assert "\n" not in str(error.value)
    return status_of(error.value), str(error.value)


def asking(k: int, exclude: Sequence[str] = (), **settings: Any) -> SelectionRequest:
    return SelectionRequest(SelectionSettings(k=k, **settings), exclude)


def ids(handed: Any) -> list[str]:
    return [one.id for one in handed.images]


def test_the_best_are_handed_out_and_then_the_next_best(bench: Any) -> None:
    first = bench.selections.select("p", asking(10))
    second = bench.selections.select("p", asking(10))
    assert ids(first) == bench.ranked()[:10]
    assert ids(second) == bench.ranked()[10:20]
    assert [one.rank for one in second.images] == list(range(1, 11))
    assert [one.score for one in first.images] == [bench.loss[id] for id in ids(first)]
    assert (first.eligible, second.eligible) == (len(bench.ids) - 1, len(bench.ids) - 11)
    assert first.model_sha256 == "ab" * 32 and first.id != second.id
    assert bench.catalog.images.counts("p") == Counts(0, 20, 0)


def test_what_is_handed_out_and_labeled_is_counted_once(bench: Any) -> None:
    def counted() -> tuple[float | None, ...]:
        value = bench.metrics.registry.get_sample_value
        return value("lloss_selected_images_total"), value("lloss_labeled_images_total")

    assert counted() == (0, 0)
    for _ in range(2):
        chosen = ids(bench.selections.select("p", asking(5), "key"))
    refused(lambda: bench.selections.select("p", asking(500)))
    assert counted() == (5, 0)
    bench.selections.label("p", {chosen[0]: "cat", chosen[1]: ""})
    refused(lambda: bench.selections.label("p", {"nobody's": "cat"}))
    assert counted() == (5, 2)


def test_requests_are_passed_on(bench: Any) -> None:
    worst = bench.selections.select(
        "p", asking(3, by="other", order="highest", exclude=bench.ranked()[-1:])
    )
    assert ids(worst) == bench.ranked()[::-1][1:4]
    drawn = bench.selections.select("p", asking(5, strategy="random", seed=3))
    assert ids(drawn) != bench.ranked()[:5]
    rest = bench.selections.select("p", asking(1000, at_most=True))
    assert len(rest.images) == len(bench.ids) - 1 - 8
    status, told = refused(lambda: bench.selections.select("p", asking(1)))
    assert status == 409 and "0 images are left" in told


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"k": 0}, 422),
        ({"k": 1, "strategy": "best"}, 422),
        ({"k": 1, "by": "id"}, 422),
        ({"k": 1, "by": "none"}, 422),
        ({"k": 1, "strategy": "diverse"}, 422),
        ({"k": 1, "subset": -1}, 422),
        ({"k": 1, "exclude": ["\ud800"]}, 422),
        ({"k": 500}, 409),
    ],
)
def test_a_request_that_cannot_be_takes_nothing(
    bench: Any, given: dict[str, Any], status: int
) -> None:
    assert refused(lambda: bench.selections.select("p", asking(**given)))[0] == status
    assert bench.catalog.images.counts("p").pending == 0


def test_spreading_too_many_picks_is_refused_before_anybody_waits(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.pools, "reading", None)
    status, told = refused(lambda: bench.selections.select("p", asking(10_001, strategy="diverse")))
    assert status == 422 and "at most 10,000" in told and "strategy top" in told


def test_what_is_not_there_is_told(bench: Any) -> None:
    for act in (
        lambda: bench.selections.select("none", asking(1)),
        lambda: bench.selections.preview("none", 1),
        lambda: bench.selections.label("\ud800", {"a": "b"}),
        lambda: bench.catalog.images.labels("../p"),
    ):
        assert refused(act)[0] == 404
    bench.catalog.pools.put("bare", "/bare")
    status, told = refused(lambda: bench.selections.select("bare", asking(1)))
    assert status == 409 and "POST /v1/pools/bare/score" in told


def test_labelers_beside_each_other_never_get_the_same_image(bench: Any) -> None:
    got: list[str] = []
    refusals = 0

    def labeler(seed: int) -> None:
        nonlocal refusals
        draw = random.Random(seed)
        while True:
            try:
                mine = ids(bench.selections.select("p", asking(draw.randint(1, 7), at_most=True)))
            except SelectionError:
                return
            got.extend(mine)
            bench.selections.label("p", dict.fromkeys(mine[::2], "cat"))

    threads = [threading.Thread(target=labeler, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(set(bench.ids) - {"007.png"})


def test_an_image_that_is_labeled_while_it_is_chosen_is_not_handed_out(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lloss.serve.daemon.services import selections

    best, choose = bench.ranked()[0], selections.select
    raced = False

    def slow(*given: Any) -> Any:
        nonlocal raced
        chosen = choose(*given)
        if not raced:
            raced = True
            bench.selections.label("p", {best: "cat"})
        return chosen

    monkeypatch.setattr(selections, "select", slow)
    assert ids(bench.selections.select("p", asking(3))) == bench.ranked()[1:4]
    assert bench.catalog.images.labels("p") == {best: "cat"}


def test_the_same_key_gives_the_same_images(bench: Any) -> None:
    first = bench.selections.select("p", asking(5), "key 1")
    again = bench.selections.select("p", asking(5), "key 1")
    assert (ids(again), again.id, again.expires) == (ids(first), first.id, first.expires)
    assert again.replayed and not first.replayed and list(again.images) == list(first.images)
    bench.selections.label("p", dict.fromkeys(ids(first), "cat"))
    bench.restart()
    assert ids(bench.selections.select("p", asking(5), "key 1")) == ids(first)
    assert ids(bench.selections.select("p", asking(5), "key 2")) == bench.ranked()[5:10]


def test_what_a_key_got_is_told_while_somebody_else_chooses(bench: Any) -> None:
    first = bench.selections.select("p", asking(5), "key")
    told: list[Any] = []

    def ask() -> None:
        told.append(bench.selections.replayed("p", asking(5), "key"))
        told.append(bench.selections.select("p", asking(5), "key"))

    thread = threading.Thread(target=ask, daemon=True)
    with bench.selections._locks["p"]:
        thread.start()
        thread.join(PATIENCE)
    assert [one.id for one in told] == [first.id] * 2 and all(one.replayed for one in told)
    assert bench.selections.replayed("p", asking(5), "other") is None
    assert bench.selections.replayed("p", asking(5), "") is None
    assert bench.catalog.images.counts("p").pending == 5, "to look hands nothing out"


def test_a_key_is_of_one_request_and_one_pool(bench: Any, tmp_path: Path) -> None:
    bench.selections.select("p", asking(5, exclude=["a", "b"]), "key")
    assert bench.selections.select("p", asking(5, exclude=["b", "a", "a"]), "key").replayed
    assert bench.selections.select("p", asking(5, subset=0.0, exclude=["a", "b"]), "key").replayed
    for other in (asking(6, exclude=["a", "b"]), asking(5), asking(5, seed=1, exclude=["a", "b"])):
        status, told = refused(lambda other=other: bench.selections.select("p", other, "key"))
        assert status == 422 and "another request" in told
    bench.catalog.pools.put("q", "/q", bench.made)
    assert not bench.selections.select("q", asking(1), "key").replayed
    for key in ("x" * 256, "\ud800"):
        assert refused(lambda key=key: bench.selections.select("p", asking(1), key))[0] == 422


def test_retries_beside_each_other_get_one_selection(bench: Any) -> None:
    got: list[Any] = []
    threads = [
        threading.Thread(target=lambda: got.append(bench.selections.select("p", asking(5), "key")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.id for one in got}) == 1 and len(got) == 8
    assert sum(not one.replayed for one in got) == 1
    assert bench.catalog.images.counts("p").pending == 5


def test_pending_images_expire_and_keys_outlive_them(
    bench: Any, later: Callable[[float], None]
) -> None:
    first = bench.selections.select("p", asking(5), "key")
    later(99)
    assert bench.catalog.images.counts("p").pending == 5
    later(2)
    assert bench.catalog.images.counts("p").pending == 0
    assert ids(bench.selections.select("p", asking(5))) == ids(first)
    assert ids(bench.selections.select("p", asking(5), "key")) == ids(first)
    later(8 * 86400)
    bench.selections.select("p", asking(1))  # prunes what is old
    fresh = bench.selections.select("p", asking(6), "key")
    assert not fresh.replayed


def test_what_was_handed_out_by_a_clock_in_the_future_ends_in_time(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, wall = 1_800_000_000.0, 4_080_000_000.0
    monkeypatch.setattr(database.time, "time", lambda: wall)
    bench.restart()
    first = bench.selections.select("p", asking(2), "key")
    assert first.expires == pytest.approx(wall + 100, abs=60)
    wall = now
    bench.restart()
    again = bench.selections.select("p", asking(2), "key")
    assert again.replayed and ids(again) == ids(first)
    assert again.expires == pytest.approx(now + 100, abs=60)
    assert [one.expires < now + 200 for one in bench.catalog.images.pending("p", 9)] == [True] * 2


def test_a_selection_that_cannot_be_written_hands_nothing_out(bench: Any) -> None:
    with bench.catalog.writing() as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        )
    with pytest.raises(LlossError):
        bench.selections.select("p", asking(5), "key")
    assert bench.catalog.images.counts("p").pending == 0
    with bench.catalog.writing() as db:
        db.execute("DROP TRIGGER full")
    assert ids(bench.selections.select("p", asking(5), "key")) == bench.ranked()[:5]


def test_images_go_back_and_are_skipped(bench: Any) -> None:
    mine = ids(bench.selections.select("p", asking(4)))
    assert bench.selections.give_back("p", [mine[0], "unknown", bench.ranked()[50]]).images == 1
    assert bench.selections.skip("p", [mine[1]]) == 1
    assert bench.selections.skip("p", [mine[1]]) == 0
    assert bench.catalog.images.counts("p") == Counts(0, 2, 1)
    assert ids(bench.selections.select("p", asking(2))) == [mine[0], bench.ranked()[4]]
    assert bench.selections.give_back("p", [mine[1]]).images == 1
    assert ids(bench.selections.select("p", asking(1))) == [mine[1]]
    bench.selections.label("p", {mine[2]: "cat"})
    assert bench.selections.skip("p", [mine[2]]) == 0  # a label is not lost
    assert bench.catalog.images.labels("p") == {mine[2]: "cat"}
    assert bench.selections.give_back("p", [mine[2]]).images == 0


def test_what_was_handed_out_again_is_not_returned_by_who_had_it_before(
    bench: Any, later: Callable[[float], None]
) -> None:
    first = bench.selections.select("p", asking(3))
    later(101)
    second = bench.selections.select("p", asking(2))
    assert ids(second) == ids(first)[:2] and second.id != first.id
    done = bench.selections.give_back("p", [*ids(first), "none"], first.id)
    assert (done.images, done.others, done.unknown) == (0, 2, 1), "the third has expired"
    assert [one.selection for one in bench.catalog.images.pending("p", 9)] == [second.id] * 2
    bench.selections.skip("p", [ids(second)[0]])
    done = bench.selections.give_back("p", ids(second), second.id)
    assert (done.images, done.others, done.unknown) == (1, 0, 0)
    assert bench.catalog.images.counts("p") == Counts(0, 0, 1), "a skip is of no selection"
    assert bench.selections.give_back("p", ids(second)).images == 1, "whoever has it"


def test_what_is_refused_of_a_choice_is_not_handed_out(bench: Any) -> None:
    def refuse(images: Sequence[Any]) -> None:
        raise RequestError(422, f"{len(images)} images that cannot be listed")

    for _ in range(2):
        told = refused(lambda: bench.selections.select("p", asking(4), "key", refuse))
        assert told == (422, "4 images that cannot be listed")
    assert bench.catalog.images.states("p", bench.ids) == {}, "nothing was stored"
    assert not bench.selections.select("p", asking(4), "key").replayed
    assert refused(lambda: bench.selections.select("p", asking(4), "key", refuse))[0] == 422


def test_a_row_without_a_label_erases_none(bench: Any) -> None:
    best, other = bench.ranked()[:2]
    bench.selections.label("p", {best: "cat"})
    done = bench.selections.label("p", {best: "", other: ""})
    assert (done.images, done.kept) == (2, 1)
    assert bench.catalog.images.labels("p") == {best: "cat", other: ""}
    bench.selections.label("p", {best: "dog", other: "owl"})
    assert bench.catalog.images.labels("p") == {best: "dog", other: "owl"}


def test_labels_replace_each_other_and_are_taken_back(bench: Any) -> None:
    best = bench.ranked()[0]
    assert bench.selections.label("p", {best: "cat", "broken.png": ""}).images == 2
    assert bench.selections.label("p", {best: "dog"}).images == 1
    assert bench.catalog.images.labels("p") == {best: "dog", "broken.png": ""}
    assert bench.selections.unlabel("p", [best, best, "none"]) == 1
    assert ids(bench.selections.select("p", asking(1))) == [best]


def test_odd_ids_are_ids_as_any(bench: Any) -> None:
    assert bench.selections.label("p", dict.fromkeys(bench.odd, "odd")).images == len(bench.odd)
    assert bench.catalog.images.labels("p") == dict.fromkeys(bench.odd, "odd")
    assert set(ids(bench.selections.select("p", asking(99)))).isdisjoint(bench.odd)
    assert bench.catalog.pools.rows()


def test_unknown_ids_are_refused_and_none_is_marked(bench: Any) -> None:
    best = bench.ranked()[0]
    strangers = ["none.png", "\ud800", "x" * 100_000, "000.png\0", "00%.png", "000.TXT", ""]
    for stranger in strangers:
        for act in (
            lambda id=stranger: bench.selections.label("p", {best: "cat", id: "cat"}),
            lambda id=stranger: bench.selections.skip("p", [best, id]),
        ):
            status, told = refused(act)
            assert status == 422 and "not in the pool 'p'; none was marked" in told
            assert len(told) < 400
    status, told = refused(
        lambda: bench.selections.label("p", {best: "cat", "no 1": "", "no 2": "", "no 3": ""})
    )
    assert "'no 1' and 2 more are not in" in told
    assert refused(lambda: bench.selections.label("p", {best: "\ud800"}))[0] == 422
    assert bench.catalog.images.counts("p") == Counts(0, 0, 0)


def test_a_label_is_of_the_image_that_its_name_means(bench: Any) -> None:
    best = bench.ranked()[0]
    done = bench.selections.label("p", {"data/not scored": "cat", best: "dog"})
    assert (done.images, done.by_name) == (2, 1)
    assert bench.catalog.images.labels("p") == {"not scored": "cat", best: "dog"}
    both = {"not scored": "cat", "./not scored": "dog"}
    status, told = refused(lambda: bench.selections.label("p", both))
    assert status == 422 and told == (
        "'not scored' and './not scored' are labels of the image 'not scored'; "
        "keep one of them; none was marked"
    )
    status, told = refused(lambda: bench.selections.label("p", {"Not scored": "cat"}))
    assert status == 422 and told.endswith("differs from it in upper and lower case alone")


def test_a_name_in_doubt_marks_none(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("id,path\na/1.png,x.png\nb/1.png,x.png\n")
    best = bench.ranked()[0]
    status, told = refused(lambda: bench.selections.label("p", {best: "cat", "1.png": "cat"}))
    assert status == 422
    assert told == "the id '1.png' may be 'a/1.png' or 'b/1.png'; write which; none was marked"
    assert bench.catalog.images.labels("p") == {}


def test_an_image_that_was_not_scored_is_known_to_the_pool(bench: Any) -> None:
    assert bench.selections.label("p", {"not scored": "cat"}).images == 1


def test_ids_that_were_handed_out_are_not_looked_up_again(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ids(bench.selections.select("p", asking(5)))
    bench.selections.give_back("p", mine[:2])
    monkeypatch.setattr(ScoresFolder, "scan", None)
    assert bench.selections.label("p", dict.fromkeys(mine, "cat")).images == 5


def test_scoring_again_keeps_labels_and_pending_images(bench: Any, tmp_path: Path) -> None:
    mine = ids(bench.selections.select("p", asking(4)))
    bench.selections.label("p", {mine[0]: "cat"})
    bench.selections.skip("p", [mine[1]])
    losses = -np.array(list(bench.loss.values()), np.float32)
    bench.write(tmp_path / "again", losses)
    bench.catalog.pools.put("p", bench.catalog.pools.row("p").uri, bench.made)
    assert bench.catalog.images.counts("p") == Counts(1, 2, 1)
    rest = bench.selections.select("p", asking(200, at_most=True))
    assert set(ids(rest)).isdisjoint(mine)
    assert ids(rest)[0] == bench.ranked()[-1]


def test_pending_images_are_listed(bench: Any) -> None:
    first = bench.selections.select("p", asking(3))
    found = bench.catalog.images.pending("p", 2)
    assert [one.id for one in found] == ids(first)[:2]
    assert (found[0].selection, found[0].rank) == (first.id, 1)
    assert found[0].score == first.images[0].score and found[0].expires == first.expires


def test_an_image_that_a_page_shows_is_marked_without_a_scan(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [f"{n:03}.png" for n in range(3)]
    listed = "".join(f"{id},{id}\n" for id in shown)
    (bench.scores.parent / "list.csv").write_text(f"id,path\n{listed}")
    bench.pools.get("p").items(shown)
    monkeypatch.setattr(ScoresFolder, "scan", None)
    assert bench.selections.label("p", {shown[0]: "cat"}).images == 1
    assert bench.selections.skip("p", shown[1:]) == 2


def test_a_pool_that_is_removed_while_it_is_chosen_from(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lloss.serve.daemon.services import selections

    choose = selections.select

    def gone(*given: Any) -> Any:
        bench.catalog.pools.remove("p")
        return choose(*given)

    monkeypatch.setattr(selections, "select", gone)
    with pytest.raises(RequestError) as error:
        bench.selections.select("p", asking(1), "key")
    assert error.value.status == 404


def test_a_choice_says_what_could_not_be_chosen_and_what_ties(bench: Any) -> None:
    losses = np.array([bench.loss[id] for id in bench.ids], np.float32)
    assert np.isnan(losses).sum() == 1
    assert bench.selections.select("p", asking(3)).notes == ["1 without a score"]
    losses[:] = 2.0
    losses[0] = np.inf
    bench.write(bench.catalog.pools.row("p").scores, losses)
    first = bench.selections.select("p", asking(3), "key")
    infinite, tied = first.notes
    assert infinite == "1 with an infinite score left out"
    assert tied.startswith("all 3 selected images have the same loss")
    again = bench.selections.select("p", asking(3), "key")
    assert again.replayed and again.notes == first.notes
