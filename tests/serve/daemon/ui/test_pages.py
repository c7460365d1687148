"""The pages without a browser: texts, forms, hostile names."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
from lloss.serve.daemon.store.records import PoolScores
from lloss.serve.daemon.ui import page_data
from starlette.testclient import TestClient

from ....html_page import HtmlPage
from ..scores import write_scores


class Page(HtmlPage):
    """A page with its forms, and the ids of its tiles."""

    def __init__(self, source: str) -> None:
        self.forms: list[dict[str, Any]] = []
        super().__init__(source)
        links = self.all("a", class_="thumb")
        self.shown = [parse_qs(urlsplit(link["href"]).query)["id"][0] for link in links]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        super().handle_starttag(tag, attrs)
        given = self.elements[-1][1]
        if tag == "form":
            self.forms.append({"action": "", **given, "fields": {}})
        elif tag in ("input", "select") and "form" in self.open:
            self.forms[-1]["fields"][given["name"]] = given.get("value", "")

    def form(self, image: str = "", action: str = "/mark") -> dict[str, Any]:
        (found,) = [
            form
            for form in self.forms
            if form["action"].endswith(action)
            and form["fields"].get("image", "") == quote(image, safe="")
        ]
        return found


@pytest.fixture
def page(client: TestClient) -> Callable[..., Page]:
    def get(path: str, status: int = 200) -> Page:
        answer = client.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return Page(answer.text)

    return get


def press(
    client: TestClient, form: dict[str, Any], do: str, code: int = 200, **fields: str
) -> dict[str, Any]:
    """Press a button of a tile as the page's script does; returns the reply."""
    data = {**form["fields"], **fields, "do": do}
    answer = client.post(form["action"], data=data, headers={"Accept": "application/json"})
    assert answer.status_code == code, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def take(client: TestClient, page: Page, k: int) -> str:
    """Take a batch; returns the address of its page."""
    form = page.form(action="/take")
    answer = client.post(form["action"], data={**form["fields"], "k": str(k)})
    assert answer.status_code == 303
    return answer.headers["location"]


def test_the_overview_without_pools_shows_how_to_add_one(
    world: Any, page: Any, make_world: Any
) -> None:
    found = page("/")
    line = re.search(r"curl .*", found.text)
    assert line
    words = shlex.split(line[0])
    assert words[:4] == ["curl", "-X", "PUT", "http://127.0.0.1:8000/v1/pools/photos"]
    assert words[-1] == f'{{"uri": "{world.folder}/…"}}'
    for fact in ("resnet18", "CPUExecutionProvider", world.models.sha256):
        assert fact in found.text
    other = make_world()
    object.__setattr__(other.settings, "pool_roots", ())
    text = other.browser().get("/").text
    assert "--pool-root FOLDER" in text and "curl" not in text


def test_the_overview_shows_pools_jobs_and_problems(world: Any, page: Any) -> None:
    world.pool("done", 70)
    world.pool("plain", 3, scored=False)
    world.pool("busy", 3, scored=False)
    world.run_job("busy", 30, 120)
    world.labels.label("done", {"0000.png": "cat"})
    found = page("/")
    assert [a["href"] for a in found.all("a") if a["href"].startswith("/pools/")] == [
        "/pools/busy", "/pools/done", "/pools/plain",
    ]  # fmt: skip
    (bar,) = found.all("progress")
    assert (bar["value"], bar["max"]) == ("30", "120")
    assert "3 pools" in found.text and "30 of 120 images · 15 a second · 6 s left" in found.text
    assert [form["action"] for form in found.forms] == ["/pools/plain/score"]
    world.problem = "loading <the> model"
    assert "loading <the> model" in page("/").text


def test_a_pool_shows_the_largest_losses_first_in_pages(world: Any, page: Any) -> None:
    ids = world.pool("photos", 100)
    first, second = page("/pools/photos"), page("/pools/photos?page=2")
    assert first.shown + second.shown == ids
    assert first.all("a", rel="next") and not second.all("a", rel="next")
    assert "#61" in second.text and "60%" in first.text and "owl" in first.text
    assert first.all("svg", role="img")[0]["aria-label"].startswith("100 images from")


def test_a_pool_without_scores_has_a_button_that_submits_a_job(
    world: Any, page: Any, client: TestClient
) -> None:
    world.pool("photos", 4, scored=False)
    (form,) = page("/pools/photos").forms
    answer = client.post(form["action"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/pools/photos")
    (job,) = world.catalog.jobs.rows("photos")
    assert job.state == "queued"
    waiting = page("/pools/photos")
    assert "waits for its turn" in waiting.text
    (form,) = waiting.forms
    client.post(form["action"], data=form["fields"])
    assert world.catalog.jobs.row(job.id).state == "cancelled"


def test_scores_of_an_earlier_model_show_no_class_names(world: Any, page: Any) -> None:
    world.pool("photos", 4)
    world.models.sha256 = "aa" * 32
    found = page("/pools/photos")
    assert "an earlier model's" in found.text and not found.all("span", class_="guess")
    assert "/pools/photos/score" in [form["action"] for form in found.forms]


def test_tiles_are_marked_and_undone(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 70)
    counts = {"labeled": 1, "pending": 0, "skipped": 0}
    form = page("/pools/photos?page=2").form(ids[65])
    reply = press(client, form, "label", label=" owl\r\n")
    assert reply == {"state": "labeled", "label": "owl", "counts": counts}
    assert ids[65] not in page("/pools/photos?page=2").shown
    labeled = page("/pools/photos/labeled")
    assert labeled.shown == [ids[65]]
    assert press(client, labeled.form(ids[65]), "undo")["state"] == "free"
    assert press(client, form, "skip")["counts"] == {**counts, "labeled": 0, "skipped": 1}
    skipped = page("/pools/photos/skipped")
    assert skipped.shown == [ids[65]]
    assert press(client, skipped.form(ids[65]), "undo")["state"] == "free"
    assert world.catalog.images.counts("photos").skipped == 0


def test_a_batch_is_reserved_for_its_browser(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 30)
    next_images = page("/pools/photos")
    where = take(client, next_images, 5)
    assert where == take(client, next_images, 5), "a double click"
    mine = page(where)
    assert mine.shown == ids[:5] and "5 of 5" in mine.text
    assert page("/pools/photos").shown[:2] == ids[5:7]
    assert page("/pools/photos/pending").shown == ids[:5]
    assert "Go on with what you took" in page("/pools/photos").text
    assert "Go on" not in world.browser().get("/pools/photos").text, "in another browser"

    press(client, mine.form(ids[0]), "label", label="cat")
    press(client, mine.form(ids[1]), "skip")
    press(client, mine.form(ids[2]), "return")
    states = [tile["data-state"] for tile in page(where).all("article")]
    assert states == ["labeled", "skipped", "free", "pending", "pending"]
    assert press(client, page(where).form(ids[0]), "undo")["state"] == "free"
    rest = page(where).form(action="/return")
    client.post(rest["action"], data=rest["fields"])
    counts = world.catalog.images.counts("photos")
    assert (counts.labeled, counts.pending, counts.skipped) == (0, 0, 1)
    assert "All done" in page(where).text
    assert "Go on" not in page("/pools/photos").text


def test_a_batch_may_be_unlike_what_is_labeled(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 16)
    assert "How to choose" not in page("/pools/photos").text, "without embeddings"
    row, path = world.catalog.pools.row("photos"), world.folder / "twins"
    vectors = np.repeat(np.eye(8, dtype=np.float32), 2, 0)
    losses = np.linspace(2, 1, 16, dtype=np.float32)
    write_scores(path, ids, {"loss": losses, "embedding": vectors}, model_sha256="5f" * 32)
    world.catalog.pools.put("photos", row.uri, PoolScores(path, "5f" * 32, 16, 0))
    kinds = []
    for strategy in ("top", "herding"):
        form = page("/pools/photos").form(action="/take")
        data = {**form["fields"], "k": "4", "strategy": strategy}
        where = client.post(form["action"], data=data).headers["location"]
        kinds.append([ids.index(id) // 2 for id in page(where).shown])
    assert kinds[0] == [0, 0, 1, 1]
    assert len(set(kinds[1])) == 4 and not {0, 1} & set(kinds[1])


def test_nothing_of_another_selection_is_returned(
    world: Any, page: Any, client: TestClient
) -> None:
    ids = world.pool("photos", 3)
    images = world.catalog.images
    where = take(client, page("/pools/photos"), 1)
    mine, pending = page(where).form(ids[0]), page("/pools/photos/pending").form(ids[0])
    world.labels.give_back("photos", [ids[0]])
    images.hand_out("photos", "theirs", [(ids[0], 1.0)], time.time() + 60)
    assert page(where).all("article")[0]["data-state"] == "taken"
    for form in (mine, pending):
        for do in ("undo", "return"):
            press(client, form, do)
    client.post("/pools/photos/return", data={"batch": mine["fields"]["batch"]})
    assert [one.selection for one in images.pending("photos", 9)] == ["theirs"]
    press(client, page("/pools/photos/pending").form(ids[0]), "return")
    assert images.pending("photos", 9) == []


def test_an_image_is_not_labeled_without_a_class(world: Any, page: Any, client: TestClient) -> None:
    """It would be handed out no more, and be in no CSV."""
    ids = world.pool("photos", 3)
    found = page("/pools/photos")
    (control,) = [given for given in found.all("select") if "image 1" in given["aria-label"]]
    assert "required" in control
    free = [given["value"] for given in found.all("button", name="do") if "formnovalidate" in given]
    assert set(free) == {"skip", "undo"}, "all but the one that labels"
    for label in ("", "  "):
        reply = press(client, found.form(ids[0]), "label", 422, label=label)
        assert reply == {"error": "choose a class first (or skip)"}
    assert world.catalog.images.counts("photos").labeled == 0
    world.models.current.manifest = replace(world.manifest, outputs={"loss": ()})
    found = page("/pools/photos")
    assert not [given for given in found.all("input", name="label") if "required" in given]
    press(client, found.form(ids[0]), "label")
    assert world.catalog.images.labels("photos") == {ids[0]: ""}, "kept elsewhere"


def test_a_new_class_is_confirmed_first(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 4)
    form = page("/pools/photos").form(ids[0])
    reply = press(client, form, "label", 422, label="kat")
    assert "a new class; the most similar one is 'cat'" in reply["error"]
    assert reply["new_class"] == "kat" and world.catalog.images.labels("photos") == {}
    press(client, form, "label", label="kat", allow_new_classes="true")
    press(client, page("/pools/photos").form(ids[1]), "label", label="kat")
    assert world.catalog.images.labels("photos") == {ids[0]: "kat", ids[1]: "kat"}


def test_broken_forms_get_an_error_page(world: Any, client: TestClient) -> None:
    world.pool("photos", 3)
    marks = [
        {"image": "x", "do": "explode"}, {"do": "label"}, {"image": "none", "do": "label"},
        {"image": "%ed%a0%80", "do": "skip"}, {"image": "%00", "do": "label", "label": "\x00"},
        {"image": "x", "do": "skip", "allow_new_classes": "?"},
    ]  # fmt: skip
    takes = [{"k": k, "key": "a" * 10} for k in ("0", "201", "many")]
    for key in ("é" * 8, "名" * 8, "a b c d e", "12345678\n", "1234567\x00"):  # for no cookie
        takes.append({"k": "1", "key": key})
    for action, forms in (("mark", marks), ("take", takes)):
        for form in forms:
            answer = client.post(f"/pools/photos/{action}", data=form)
            assert answer.status_code == 422 and "To all pools" in answer.text, form
    counts = world.catalog.images.counts("photos")
    assert (counts.labeled, counts.pending, counts.skipped) == (0, 0, 0)


def test_missing_things_get_an_error_page(world: Any, page: Any) -> None:
    assert "no pool 'none'" in page("/pools/none", 404).text
    page("/pools/none/labeled", 404)
    page("/pools/none/batch?key=x", 404)
    world.pool("photos", 3)
    page("/pools/photos/batch?key=never-taken", 404)
    page("/pools/none?page=0", 422)
    assert "There is no page 7" in page("/pools/photos?page=7").text


def test_there_are_no_pages_after_the_last_allowed_one(
    world: Any, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_data, "MAX_PAGES", 2)
    ids = world.pool("photos", 190)
    last = page("/pools/photos?page=2")
    assert last.shown == ids[60:120] and not last.all("a", rel="next")
    monkeypatch.setattr(world.selections, "preview", None)
    for number in (3, 1_000_000):
        assert f"There is no page {number}" in page(f"/pools/photos?page={number}").text


def test_hostile_ids_are_escaped(
    world: Any, page: Any, client: TestClient, hostile: dict[str, bytes]
) -> None:
    world.table_pool("hostile", hostile)
    found = page("/pools/hostile")
    assert found.shown == list(hostile)
    assert [tag for tag, _ in found.elements if tag == "script"] == ["script"], "the page's own"
    assert not any(name.startswith("on") for _, given in found.elements for name in given)
    assert "\u202e" not in found.source and "\\u202e" in found.text
    for id in hostile:
        picture = found.all("img")[list(hostile).index(id)]["src"]
        assert client.get(picture).headers["content-type"] == "image/png"
        label = f"<b>{id[:20]}\u202e"
        press(client, found.form(id), "label", label=label, allow_new_classes="true")
    assert set(world.catalog.images.labels("hostile")) == set(hostile)
    labeled = page("/pools/hostile/labeled")
    assert sorted(labeled.shown) == sorted(hostile) and not labeled.all("b", class_="")


def test_hostile_class_names_are_escaped(make_world: Any) -> None:
    classes = ("<script>alert(1)</script>", "\"'&", "\u202eeman", "y" * 3000)
    world = make_world(classes=classes)
    world.pool("photos", 8)
    with world.browser() as client:
        found = Page(client.get("/pools/photos").text)
        values = [given["value"] for given in found.all("option")][:5]
        assert values == ["", *classes] and len(found.all("script")) == 1
        press(client, found.form("0000.png"), "label", label=classes[0])
        assert world.catalog.images.labels("photos") == {"0000.png": classes[0]}
        press(client, found.form("0001.png"), "label", 422, label=classes[3])  # too long


def test_pages_are_not_cached_and_guarded(world: Any, client: TestClient) -> None:
    world.pool("photos", 3)
    for path in ("/", "/pools/photos", "/pools/none", "/page/status"):
        answer = client.get(path)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_controls_have_accessible_names(world: Any, page: Any) -> None:
    world.pool("photos", 3)
    found = page("/pools/photos")
    assert all(img["alt"] for img in found.all("img"))
    assert all(select["aria-label"] for select in found.all("select"))
    assert all(tile["aria-label"] for tile in found.all("article"))
    assert found.all("p", id="message", role="status") and found.all("html", lang="en")
    labels = {given.get("for") for given in found.all("label")}
    assert {given["id"] for given in found.all("input", type="number")} <= labels


def test_static_files_are_sent_again_when_they_changed(client: TestClient) -> None:
    answer = client.get("/static/page.js")
    assert "javascript" in answer.headers["content-type"]
    assert answer.headers["cache-control"] == "no-cache"
    tag = {"If-None-Match": answer.headers["etag"]}
    assert client.get("/static/page.js", headers=tag).status_code == 304
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    for wrong in ("page.py", "..%2fpage_data.py", "%2fetc%2fpasswd"):
        assert client.get(f"/static/{wrong}").status_code in (400, 404)


def test_the_status_has_the_live_figures(world: Any, client: TestClient) -> None:
    world.pool("photos", 3, scored=False)
    world.run_job("photos", 1, None)
    world.metrics.queued(5)
    status = client.get("/page/status").json()
    assert status["problem"] == "" and status["queue"] == "5"
    assert status["jobs"]["photos"]["done"] == 1 and status["jobs"]["photos"]["total"] is None


def test_pages_need_the_token_and_never_show_it(make_world: Any) -> None:
    world = make_world(token="a-token-of-some-length")
    with world.browser() as client:
        assert client.get("/", headers={"Accept": "text/html"}).status_code == 401
        found = client.get("/", auth=("any", "a-token-of-some-length"))
        assert found.status_code == 200 and "a-token" not in found.text
        assert "Authorization: Bearer $TOKEN" in Page(found.text).text
