"""The pages in a real browser: keys, tiles that change in place, the content security policy.

Needs ``chromium`` and ``chromedriver`` (Debian: chromium-driver), and selenium.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from lloss.serve.daemon.errors import RequestError

from .. import waiting

ESCAPE, ENTER, UP, DOWN = "\ue00c", "\ue007", "\ue013", "\ue015"
LEFT, RIGHT, END = "\ue012", "\ue014", "\ue010"


class Screen:
    """A browser that shows pages of a world."""

    def __init__(self, driver: Any, served: Any) -> None:
        self.driver, self.world, self.url = driver, served.world, served.url

    def open(self, path: str = "/pools/photos") -> None:
        self.driver.get(f"{self.url}{path}")

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def state(self, place: int) -> str:
        return str(self.one(f"#image-{place}").get_attribute("data-state"))

    def ids(self) -> list[str]:
        shown = self.driver.find_elements("css selector", ".id")
        return [tile.get_attribute("title") for tile in shown]

    def run(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    @property
    def focused(self) -> str:
        return str(self.run("document.activeElement.id"))

    def until(self, check: Callable[[], Any]) -> Any:
        """Wait, also while an element is missing."""

        def quiet() -> Any:
            with contextlib.suppress(Exception):
                return check()

        return waiting.until(quiet)

    def until_state(self, place: int, state: str, focused: int | None = None) -> None:
        self.until(lambda: self.state(place) == state)
        if focused:
            self.until(lambda: self.focused == f"image-{focused}")

    def failed_requests(self) -> list[str]:
        """What the browser has logged since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def screen(chromium: Any, served: Any) -> Iterator[Screen]:
    """Checks at the end that its console is empty, and that it sent requests to no other site."""
    chromium.get_log("performance")
    screen = Screen(chromium, served)
    screen.failed_requests()
    yield screen
    complaints = screen.failed_requests()
    messages = [json.loads(entry["message"]) for entry in chromium.get_log("performance")]
    requested = {
        one["message"]["params"]["request"]["url"]
        for one in messages
        if one["message"]["method"] == "Network.requestWillBeSent"
    }
    chromium.get("about:blank")
    assert complaints == [], complaints
    assert requested and all(url.startswith(f"{served.url}/") for url in requested), requested


def test_keys_label_skip_and_undo_in_place(screen: Screen) -> None:
    world, ids = screen.world, screen.world.pool("photos", 40)
    labels = partial(world.catalog.images.labels, "photos")
    screen.open()
    screen.driver.execute_script("window.stays = true")
    screen.keys("j")
    assert screen.focused == "image-1"
    screen.keys("2")  # the second class
    screen.until_state(1, "labeled", focused=2)
    assert labels() == {ids[0]: "dog"}
    assert screen.text("#image-1 .verdict") == "labeled dog"
    assert "Image 1 labeled dog" in screen.text("#message")
    screen.keys("s")
    screen.until_state(2, "skipped", focused=3)
    screen.keys("l")
    screen.until(lambda: "Choose a class first (or skip)" in screen.text("#message"))
    assert screen.state(3) == "free"
    screen.keys(ESCAPE, "3")
    screen.until_state(3, "labeled", focused=4)
    assert labels() == {ids[0]: "dog", ids[2]: "owl"}
    counts = screen.driver.find_elements("css selector", "[data-count]")
    assert [count.text for count in counts] == ["2", "0", "1"]
    screen.keys("u")  # the latest
    screen.until_state(3, "free", focused=3)
    screen.keys("k", "u")  # this one
    screen.until_state(2, "free")
    assert world.catalog.images.counts("photos").skipped == 0 and labels() == {ids[0]: "dog"}
    assert screen.run("window.stays"), "the page was not loaded again"


def test_a_digit_key_is_the_class_of_that_name(screen: Screen) -> None:
    world = screen.world
    world.models.current.manifest = replace(world.manifest, classes=tuple("0123456789"))
    ids = world.pool("photos", 6)
    screen.open()
    screen.keys("j", "3", "0")
    screen.until_state(2, "labeled")
    assert world.catalog.images.labels("photos") == {ids[0]: "3", ids[1]: "0"}


def test_the_next_image_has_the_focus_before_the_reply(screen: Screen) -> None:
    ids, labels = screen.world.pool("photos", 30), screen.world.labels
    label = labels.label

    def slow(*arguments: Any) -> Any:
        time.sleep(0.2)
        return label(*arguments)

    labels.label = slow
    screen.open()
    screen.keys("j", "1", "2", "3", "1", "u")
    assert screen.focused == "image-5"
    screen.until_state(4, "labeled")
    wanted = {ids[0]: "cat", ids[1]: "dog", ids[2]: "owl", ids[3]: "cat"}
    assert screen.world.catalog.images.labels("photos") == wanted, "u came too soon"
    screen.keys("u")
    screen.until_state(4, "free")


def test_keys_move_along_rows_and_columns(screen: Screen) -> None:
    screen.world.pool("photos", 20)
    screen.open()
    style = "getComputedStyle(document.querySelector('.tiles')).gridTemplateColumns"
    columns = len(screen.run(style).split())
    assert 4 <= columns <= 8
    screen.keys(RIGHT, RIGHT, DOWN)
    assert screen.focused == f"image-{2 + columns}"
    screen.keys(UP, LEFT, LEFT)
    assert screen.focused == "image-1"
    screen.keys(END)
    assert screen.focused == "image-20"
    assert screen.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tabs = "[...document.querySelectorAll('.tile')].filter(t => t.tabIndex === 0).length"
    assert screen.run(tabs) == 1, "Tab reaches one tile, keys the others"


def test_typing_and_the_help_press_no_button(screen: Screen) -> None:
    world = screen.world
    world.models.current.manifest = replace(world.manifest, outputs={"loss": ()})
    ids = world.pool("photos", 4)
    screen.open()
    screen.keys("j", "c", "sulk", ENTER)
    screen.until_state(1, "labeled", focused=2)
    assert world.catalog.images.labels("photos") == {ids[0]: "sulk"}
    assert world.catalog.images.counts("photos").skipped == 0
    screen.keys("c", "x", ESCAPE)
    assert screen.focused == "image-2" and screen.state(2) == "free"
    is_open = partial(screen.run, "document.getElementById('keys').open")
    screen.keys("?")
    assert is_open()
    screen.keys("s", ESCAPE)
    assert not is_open() and world.catalog.images.counts("photos").skipped == 0
    screen.one("[data-keys]").click()
    assert is_open()


def test_a_new_class_is_added_by_a_button(screen: Screen) -> None:
    world = screen.world
    many = tuple(f"class {number}" for number in range(200))
    world.models.current.manifest = replace(world.manifest, classes=many)
    ids = world.pool("photos", 4)
    screen.open()
    screen.keys("j", "c", "clas 7", ENTER)
    button = screen.until(lambda: screen.one("#image-1 .wrong button"))
    assert "the most similar one is 'class 7'" in screen.text("#image-1 .wrong")
    assert screen.state(1) == "free"
    button.click()
    screen.until_state(1, "labeled")
    assert world.catalog.images.labels("photos") == {ids[0]: "clas 7"}
    (failed,) = screen.failed_requests()
    assert "422" in failed


def test_a_batch_is_taken_worked_through_and_returned(screen: Screen) -> None:
    ids = screen.world.pool("photos", 12)
    screen.open()
    count = screen.one("#k")
    count.clear()
    count.send_keys("4")
    screen.one("#take button").click()
    screen.until(lambda: "/batch" in screen.driver.current_url)
    screen.keys("j", "1")
    screen.until_state(1, "labeled", focused=2)
    screen.keys("r")
    screen.until_state(2, "free", focused=3)
    screen.keys("u")
    screen.until_state(1, "free")
    assert screen.text("[data-waiting]") == "2"
    screen.one("#image-3 button[value=skip]").click()
    screen.until(lambda: screen.state(3) == "skipped" and screen.text("[data-waiting]") == "1")
    screen.one("#return button").click()
    screen.until(lambda: "/batch" not in screen.driver.current_url)
    counts = screen.world.catalog.images.counts("photos")
    assert (counts.labeled, counts.pending, counts.skipped) == (0, 0, 1)
    assert screen.ids() == [id for id in ids if id != ids[2]]


def test_images_with_hostile_ids_are_labeled_and_shown(
    screen: Screen, hostile: dict[str, bytes]
) -> None:
    driver = screen.driver
    screen.world.table_pool("hostile", hostile)
    screen.open("/pools/hostile")
    screen.keys("j", "o")
    screen.until(lambda: len(driver.window_handles) == 2)
    first, second = driver.window_handles
    driver.switch_to.window(second)
    screen.until(lambda: screen.run("document.images.length && document.images[0].width") == 64)
    driver.close()
    driver.switch_to.window(first)
    for place in range(1, len(hostile) + 1):
        screen.keys("1")
        screen.until(lambda p=place: screen.one(f"#image-{p}[data-state=labeled]:not(.busy)"))  # type: ignore[misc]
    assert set(screen.world.catalog.images.labels("hostile")) == set(hostile)
    screen.until(lambda: screen.run("[...document.images].every(i => i.naturalWidth > 128)"))
    screen.world.table_pool("broken", {"a": b"no image"})
    screen.open("/pools/broken")
    why = screen.until(lambda: screen.text(".thumb.failed .why"))
    assert "not an image" in why
    assert screen.one(".thumb img").get_attribute("alt") == f"cannot be shown: {why}"
    assert len(screen.driver.find_elements("css selector", ".why")) == 1


def test_progress_is_live(screen: Screen) -> None:
    world = screen.world
    world.pool("photos", 5, scored=False)
    job = world.run_job("photos", 10, 100)
    world.pool("constructor", 3)  # every object of JavaScript has an attribute of that name
    screen.open("/")
    screen.driver.execute_script("window.stays = true")
    assert screen.text("[data-text]").startswith("10 of 100 images")
    world.catalog.jobs.progress(job.id, 60, 0, 100)
    world.metrics.queued(7)
    screen.until(lambda: screen.text("[data-text]").startswith("60 of 100 images"))
    assert screen.one("progress").get_attribute("value") == "60"
    assert screen.text("[data-queue]") == "7" and screen.run("window.stays")
    world.catalog.jobs.cancel(job.id)
    screen.until(lambda: screen.text(".state button") == "Score")


def test_an_error_is_shown_at_the_image(screen: Screen) -> None:
    ids, labels = screen.world.pool("photos", 3), screen.world.labels
    label = labels.label

    def refuse(*arguments: Any) -> None:
        raise RequestError(507, "the disk is <full>; free some space")

    labels.label = refuse
    screen.open()
    screen.keys("j", "1")
    wrong = screen.until(lambda: screen.text("#image-1 .wrong"))
    assert wrong == "the disk is <full>; free some space" and screen.state(1) == "free"
    labels.label = label
    screen.keys("k", "1")
    screen.until_state(1, "labeled")
    assert screen.driver.find_elements("css selector", ".wrong") == []
    assert list(screen.world.catalog.images.labels("photos")) == [ids[0]]
    (failed,) = screen.failed_requests()
    assert "507" in failed


def test_no_page_is_wider_than_the_window(screen: Screen) -> None:
    world, driver = screen.world, screen.driver
    world.pool("a" * 80, 30)
    world.table_pool("photos", {"x" * 4000: b"", "y.png": b"no image"})
    world.pool("busy", 3, scored=False)
    world.run_job("busy", 1, 2_000_000)
    try:
        for width in (400, 1280):
            metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            for path in ("/", f"/pools/{'a' * 80}", "/pools/photos", "/pools/busy"):
                screen.open(path)
                assert screen.run("document.documentElement.scrollWidth") <= width, path
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
