"""The pages without a browser: texts, forms, hostile names."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from lloss.serve.daemon.ui import page_data
from starlette.testclient import TestClient

from ....html_page import HtmlPage


class Page(HtmlPage):
    """A page with its forms."""

    def __init__(self, source: str) -> None:
        self.forms: list[dict[str, Any]] = []
        super().__init__(source)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        super().handle_starttag(tag, attrs)
        given = self.elements[-1][1]
        if tag == "form":
            self.forms.append({"action": "", **given, "fields": {}, "buttons": []})
        elif tag in ("input", "select") and "form" in self.open:
            self.forms[-1]["fields"][given["name"]] = given.get("value", "")
        elif tag == "button" and "form" in self.open:
            self.forms[-1]["buttons"].append(given.get("value", ""))

    def form(self, image: str) -> dict[str, Any]:
        (found,) = [f for f in self.forms if f["fields"].get("image") == quote(image, safe="")]
        return found


@pytest.fixture
def page(client: TestClient) -> Callable[..., Page]:
    def get(path: str, status: int = 200) -> Page:
        answer = client.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return Page(answer.text)

    return get


def shown(page: Page) -> list[str]:
    """The ids of the tiles."""
    links = page.all("a", class_="thumb")
    return [parse_qs(urlsplit(link["href"]).query)["id"][0] for link in links]


def press(client: TestClient, form: dict[str, Any], do: str, **fields: str) -> httpx.Response:
    return client.post(form["action"], data={**form["fields"], **fields, "do": do})


def test_the_overview_without_pools_shows_how_to_add_one(
    world: Any, page: Any, make_world: Any
) -> None:
    found = page("/")
    line = re.search(r"curl .*", found.text)
    assert line
    words = shlex.split(line[0])
    assert words[:4] == ["curl", "-X", "PUT", "http://127.0.0.1:8000/v1/pools/photos"]
    assert words[-1] == f'{{"uri": "{world.folder}"}}'
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
    assert "30 of 120 images · 15 a second · 6 s left" in found.text
    assert [form["action"] for form in found.forms] == ["/pools/plain/score"]
    assert found.all("meta", http_equiv="refresh") == [] and 'http-equiv="refresh"' in found.source
    world.problem = "loading <the> model"
    assert "loading <the> model" in page("/").text


def test_many_pools_come_in_pages(world: Any, page: Any) -> None:
    for number in range(103):
        world.catalog.pools.put(f"p{number:03d}", "/x")
    first = page("/")
    assert first.all("a", rel="next")[0]["href"] == "/?page=2" and "103 pools" in first.text
    assert [a["href"] for a in page("/?page=2").all("a") if "pools" in a["href"]] == [
        "/pools/p100", "/pools/p101", "/pools/p102",
    ]  # fmt: skip
    assert "There is no page 9" in page("/?page=9").text


def test_a_pool_shows_the_largest_losses_first_in_pages(world: Any, page: Any) -> None:
    ids = world.pool("photos", 100)
    first, second = page("/pools/photos"), page("/pools/photos?page=2")
    assert shown(first) + shown(second) == ids
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
    assert "waits for its turn" in waiting.text and "refresh" in waiting.source
    (form,) = waiting.forms
    client.post(form["action"], data=form["fields"])
    assert world.catalog.jobs.row(job.id).state == "cancelled"


def test_scores_of_an_earlier_model_show_no_class_names(world: Any, page: Any) -> None:
    world.pool("photos", 4)
    world.models.sha256 = "aa" * 32
    found = page("/pools/photos")
    assert "an earlier model's" in found.text and not found.all("span", class_="guess")
    assert "/pools/photos/score" in [form["action"] for form in found.forms]


def test_forms_mark_and_undo_and_lead_back(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 70)
    answer = press(client, page("/pools/photos?page=2").form(ids[65]), "label", label="owl")
    assert answer.status_code == 303
    assert world.catalog.images.labels("photos") == {ids[65]: "owl"}
    back = page(answer.headers["location"])
    assert f"Marked labeled: {ids[65]}" in back.text and ids[65] not in shown(back)
    assert shown(back)[0] == ids[60]
    (undo,) = [form for form in back.forms if form["buttons"] == ["undo"]]
    press(client, undo, "undo")
    assert world.catalog.images.labels("photos") == {}
    press(client, page("/pools/photos").form(ids[0]), "skip")
    counts = world.catalog.images.counts("photos")
    assert (counts.labeled, counts.pending, counts.skipped) == (0, 0, 1)
    skipped = page("/pools/photos/skipped")
    assert shown(skipped) == [ids[0]]
    press(client, skipped.form(ids[0]), "undo")
    assert world.catalog.images.counts("photos").skipped == 0


def test_a_batch_is_reserved_for_its_browser(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 30)
    (form,) = [f for f in page("/pools/photos").forms if f["action"].endswith("/take")]
    answers = [client.post(form["action"], data={**form["fields"], "k": "5"}) for _ in range(2)]
    assert answers[0].headers["location"] == answers[1].headers["location"], "a double click"
    where = answers[0].headers["location"]
    mine = page(where)
    assert shown(mine) == ids[:5] and "5 of 5" in mine.text
    assert shown(page("/pools/photos"))[:2] == ids[5:7]
    assert shown(page("/pools/photos/pending")) == ids[:5]
    assert "Go on with what you took" in page("/pools/photos").text
    assert "Go on" not in world.browser().get("/pools/photos").text, "in another browser"

    press(client, mine.form(ids[0]), "label", label="cat")
    press(client, mine.form(ids[1]), "skip")
    press(client, mine.form(ids[2]), "return")
    states = [tile["data-state"] for tile in page(where).all("article")]
    assert states == ["labeled", "skipped", "free", "pending", "pending"]
    press(client, page(where).form(ids[0]), "undo")
    assert page(where).all("article")[0]["data-state"] == "pending", "kept for who took it"
    press(client, page(where).form(ids[3]), "skip")
    press(client, page(where).form(ids[3]), "undo")
    pending = world.catalog.images.pending("photos", 9)
    assert {one.id: one.rank for one in pending} == {ids[0]: 1, ids[3]: 4, ids[4]: 5}
    (rest,) = [f for f in page(where).forms if f["action"].endswith("/return")]
    client.post(rest["action"], data=rest["fields"])
    counts = world.catalog.images.counts("photos")
    assert (counts.labeled, counts.pending, counts.skipped) == (0, 0, 1)
    assert "All done" in page(where).text
    assert "Go on" not in page("/pools/photos").text


def test_undo_takes_no_image_from_another_selection(
    world: Any, page: Any, client: TestClient
) -> None:
    ids = world.pool("photos", 3)
    (form,) = [f for f in page("/pools/photos").forms if f["action"].endswith("/take")]
    where = client.post(form["action"], data={**form["fields"], "k": "1"}).headers["location"]
    form = page(where).form(ids[0])
    press(client, form, "label", label="cat")
    world.catalog.images.unlabel("photos", [ids[0]])
    images, soon = world.catalog.images, time.time() + 60
    images.hand_out("photos", "theirs", [(ids[0], 1.0)], soon)
    assert page(where).all("article")[0]["data-state"] == "taken"
    for do in ("undo", "return"):
        press(client, form, do)
    client.post("/pools/photos/return", data={"batch": parse_qs(urlsplit(where).query)["key"][0]})
    assert [one.selection for one in images.pending("photos", 9)] == ["theirs"]


def test_an_old_page_returns_nothing_of_a_newer_selection(
    world: Any, page: Any, client: TestClient
) -> None:
    ids = world.pool("photos", 3)
    images, soon = world.catalog.images, time.time() + 60
    images.hand_out("photos", "first", [(ids[0], 1.0), (ids[1], 0.5)], soon)
    shown_then = page("/pools/photos/pending")
    images.give_back("photos", [ids[0]])
    images.hand_out("photos", "second", [(ids[0], 1.0)], soon)
    for id in ids[:2]:
        press(client, shown_then.form(id), "return")
    assert [one.selection for one in images.pending("photos", 9)] == ["second"]
    press(client, page("/pools/photos/pending").form(ids[0]), "return")
    assert images.pending("photos", 9) == []


def test_scripts_get_json(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 5)
    form = page("/pools/photos").form(ids[1])
    data = {**form["fields"], "do": "label", "label": "dog"}
    answer = client.post(form["action"], data=data, headers={"Accept": "application/json"})
    assert answer.json() == {
        "state": "labeled", "label": "dog", "counts": {"labeled": 1, "pending": 0, "skipped": 0},
    }  # fmt: skip
    data["image"] = "nowhere"
    answer = client.post(form["action"], data=data, headers={"Accept": "application/json"})
    assert answer.status_code == 422 and list(answer.json()) == ["error"]


def test_an_image_is_not_labeled_without_a_class(world: Any, page: Any, client: TestClient) -> None:
    """It would be handed out no more, and be in no CSV."""
    ids = world.pool("photos", 3)
    found = page("/pools/photos")
    (control,) = [given for given in found.all("select") if "image 1" in given["aria-label"]]
    assert "required" in control
    free = [given["value"] for given in found.all("button", name="do") if "formnovalidate" in given]
    assert set(free) == {"skip", "undo"}, "all but the one that labels"
    for label in ("", "  "):
        answer = press(client, found.form(ids[0]), "label", label=label)
        assert answer.status_code == 422 and "choose a class first (or skip)" in answer.text
    assert world.catalog.images.counts("photos").labeled == 0
    world.models.current.manifest = replace(world.manifest, outputs={"loss": ()})
    found = page("/pools/photos")
    assert not [given for given in found.all("input", name="label") if "required" in given]
    assert press(client, found.form(ids[0]), "label").status_code == 303
    assert world.catalog.images.labels("photos") == {ids[0]: ""}, "kept elsewhere"


def test_a_new_class_is_confirmed_first(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 4)
    labels = world.catalog.images.labels
    form = page("/pools/photos").form(ids[0])
    answer = press(client, form, "label", label="kat")
    assert answer.status_code == 422
    assert "a new class; the most similar one is 'cat'" in Page(answer.text).text
    assert labels("photos") == {}
    (again,) = [f for f in Page(answer.text).forms if "allow_new_classes" in f["fields"]]
    assert client.post(again["action"], data=again["fields"]).status_code == 303
    assert labels("photos") == {ids[0]: "kat"}
    json_ = {"Accept": "application/json"}
    data = {**form["fields"], "image": ids[1], "do": "label", "label": "kitten"}
    answer = client.post(form["action"], data=data, headers=json_)
    assert answer.status_code == 422 and answer.json()["new_class"] == "kitten"
    data["label"] = "kat"
    assert client.post(form["action"], data=data, headers=json_).status_code == 200, "known now"
    data = {**data, "image": ids[2], "label": "kitten", "allow_new_classes": "true"}
    assert client.post(form["action"], data=data, headers=json_).json()["label"] == "kitten"


def test_get_requests_change_nothing(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 5)
    for path in ("/", "/page/status", "/pools/photos", "/pools/photos/pending",
                 f"/pools/photos/thumb?id={ids[0]}", f"/v1/pools/photos/images?id={ids[0]}",
                 f"/pools/photos?did=labeled&image={ids[0]}"):  # fmt: skip
        assert client.get(path).status_code == 200
    page("/pools/photos/batch?key=3.never-taken", 404)
    for action in ("mark", "take", "return", "score", "cancel"):
        assert client.get(f"/pools/photos/{action}").status_code in (404, 405)
    assert world.catalog.images.states("photos", ids) == {}
    assert world.catalog.jobs.rows() == []


def test_broken_forms_get_an_error_page(world: Any, client: TestClient) -> None:
    world.pool("photos", 3)
    marks = [
        {"image": "x", "do": "explode"}, {"do": "label"}, {"image": "none", "do": "label"},
        {"image": "%ed%a0%80", "do": "skip"}, {"image": "%00", "do": "label", "label": "\x00"},
        {"image": "x", "do": "label", "page": "-1"}, {"image": "x", "do": "label", "page": "x"},
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
    page("/pools/none/batch?key=1.x", 404)
    page("/?page=0", 422)
    world.pool("photos", 3)
    assert "There is no page 7" in page("/pools/photos?page=7").text


def test_there_are_no_pages_after_the_last_allowed_one(
    world: Any, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_data, "MAX_PAGES", 2)
    ids = world.pool("photos", 190)
    last = page("/pools/photos?page=2")
    assert shown(last) == ids[60:120] and not last.all("a", rel="next")
    monkeypatch.setattr(world.selections, "preview", None)
    for number in (3, 1_000_000):
        assert f"There is no page {number}" in page(f"/pools/photos?page={number}").text


def test_hostile_ids_are_escaped(
    world: Any, page: Any, client: TestClient, hostile: dict[str, bytes]
) -> None:
    world.table_pool("hostile", hostile)
    found = page("/pools/hostile")
    assert shown(found) == list(hostile)
    assert [tag for tag, _ in found.elements if tag == "script"] == ["script"], "the page's own"
    assert not any(name.startswith("on") for _, given in found.elements for name in given)
    assert "\u202e" not in found.source and "\\u202e" in found.text
    for id in hostile:
        picture = found.all("img")[list(hostile).index(id)]["src"]
        assert client.get(picture).headers["content-type"] == "image/png"
        label = f"<b>{id[:20]}\u202e"
        asked = Page(press(client, found.form(id), "label", label=label).text)
        assert not asked.all("b") and "\u202e" not in asked.source.split("<form")[0]
        again = next(form for form in asked.forms if "allow_new_classes" in form["fields"])
        answer = client.post(again["action"], data=again["fields"])
        assert answer.status_code == 303
        back = page(answer.headers["location"])
        assert id[:20].isprintable() is False or len(id) > 999 or id in back.text
    assert set(world.catalog.images.labels("hostile")) == set(hostile)
    labeled = page("/pools/hostile/labeled")
    assert sorted(shown(labeled)) == sorted(hostile) and not labeled.all("b", class_="")


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
        answer = press(client, found.form("0001.png"), "label", label=classes[3])
        assert answer.status_code == 422, "no label is that long"


def test_of_many_classes_names_are_typed(make_world: Any) -> None:
    world = make_world(classes=tuple(f"class {number}" for number in range(200)))
    world.pool("photos", 3)
    found = Page(world.browser().get("/pools/photos").text)
    assert len(found.all("input", list="classes")) == 3 and len(found.all("option")) == 200


def test_pages_hold_no_script_or_style_of_their_own(world: Any, client: TestClient) -> None:
    world.pool("photos", 70)
    world.run_job("photos", 10, 70)
    for path in ("/", "/pools/photos", "/pools/photos/labeled", "/pools/none"):
        answer = client.get(path)
        found = Page(answer.text)
        assert found.all("style") == []
        assert [given["src"] for given in found.all("script")] == ["/static/page.js"]
        assert not any("style" in given for _, given in found.elements)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        for _, given in found.elements:
            for name in ("src", "href", "action"):
                assert given.get(name, "/").startswith(("/", "#")), given


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


def test_the_status_is_not_cached(world: Any, client: TestClient) -> None:
    world.pool("photos", 3, scored=False)
    world.run_job("photos", 1, None)
    world.metrics.queued(5)
    answer = client.get("/page/status")
    status = answer.json()
    assert status["problem"] == "" and status["queue"] == "5" and status["rate"] == "–"
    assert status["jobs"]["photos"]["done"] == 1 and status["jobs"]["photos"]["total"] is None
    assert answer.headers["cache-control"] == "no-store"


def test_pages_need_the_token_and_never_show_it(make_world: Any) -> None:
    world = make_world(token="a-token-of-some-length")
    with world.browser() as client:
        assert client.get("/", headers={"Accept": "text/html"}).status_code == 401
        found = client.get("/", auth=("any", "a-token-of-some-length"))
        assert found.status_code == 200 and "a-token" not in found.text
        assert "Authorization: Bearer $TOKEN" in Page(found.text).text


def test_redirects_stay_on_this_site(world: Any, page: Any, client: TestClient) -> None:
    ids = world.pool("photos", 3)
    form = page("/pools/photos").form(ids[0])
    for batch in ("https://evil/", "\r\nX: y", "1.x"):
        answer = press(client, form, "skip", view="batch", batch=batch)
        assert answer.status_code == 404 and "location" not in answer.headers
    assert world.catalog.images.counts("photos").skipped == 0
