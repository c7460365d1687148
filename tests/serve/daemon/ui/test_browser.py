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

from lloss.images.decode import decode_whole

from .. import waiting


@pytest.fixture
def browser(chromium: Any, served: Any) -> Iterator[Any]:
    """Checks at the end that its console is empty, and that it sent requests to no other site."""
    chromium.get_log("performance"), chromium.get_log("browser")
    yield chromium
    complaints = [entry["message"] for entry in chromium.get_log("browser")]
    asked = set()
    for entry in chromium.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    chromium.get("about:blank")
    assert complaints == [], complaints
    assert asked and all(url.startswith(f"{served.url}/") for url in asked), asked


def until(check: Callable[[], Any]) -> Any:
    """Wait also while an element is missing."""

    def quiet() -> Any:
        with contextlib.suppress(Exception):
            return check()

    return waiting.until(quiet)


def keys(browser: Any, *pressed: str) -> None:
    from selenium.webdriver import ActionChains

    for key in pressed:
        ActionChains(browser).send_keys(key).perform()


def state(browser: Any, place: int) -> str:
    found: str = browser.find_element("id", f"image-{place}").get_attribute("data-state")
    return found


def focused(browser: Any) -> str:
    found: str = browser.execute_script("return document.activeElement.id")
    return found


def message(browser: Any) -> str:
    found: str = browser.find_element("id", "message").text
    return found


def test_keys_label_skip_and_undo_in_place(browser: Any, served: Any) -> None:
    from selenium.webdriver import Keys

    ids = served.world.pool("photos", 40)
    world = served.world
    browser.get(f"{served.url}/pools/photos")
    browser.execute_script("window.stays = true")
    keys(browser, "j")
    assert focused(browser) == "image-1"
    keys(browser, "2")  # the second class
    until(lambda: state(browser, 1) == "labeled")
    until(lambda: focused(browser) == "image-2")
    assert world.catalog.images.labels("photos") == {ids[0]: "dog"}
    assert browser.find_element("css selector", "#image-1 .verdict").text == "labeled dog"
    assert "Image 1 labeled dog" in message(browser)

    keys(browser, "s")
    until(lambda: state(browser, 2) == "skipped")
    until(lambda: focused(browser) == "image-3")
    keys(browser, "l")
    until(lambda: "Choose a class first (or skip)" in message(browser))
    assert state(browser, 3) == "free"
    keys(browser, Keys.ESCAPE, "3")
    until(lambda: state(browser, 3) == "labeled")
    assert world.catalog.images.labels("photos") == {ids[0]: "dog", ids[2]: "owl"}
    counts = browser.find_elements("css selector", "[data-count]")
    assert [count.text for count in counts] == ["2", "0", "1"]

    until(lambda: focused(browser) == "image-4")
    keys(browser, "u")  # the latest
    until(lambda: state(browser, 3) == "free" and focused(browser) == "image-3")
    keys(browser, "k", "u")  # this one
    until(lambda: state(browser, 2) == "free")
    assert world.catalog.images.counts("photos").skipped == 0
    assert world.catalog.images.labels("photos") == {ids[0]: "dog"}
    assert browser.execute_script("return window.stays"), "the page was not loaded again"


def test_a_digit_key_is_the_class_of_that_name(browser: Any, served: Any) -> None:
    from dataclasses import replace

    world = served.world
    world.manifest = replace(world.manifest, classes=tuple("0123456789"))
    world.models.manifest = world.manifest
    ids = world.pool("photos", 6)
    browser.get(f"{served.url}/pools/photos")
    keys(browser, "j", "3", "0", "9")
    until(lambda: state(browser, 3) == "labeled")
    assert world.catalog.images.labels("photos") == {ids[0]: "3", ids[1]: "0", ids[2]: "9"}


def test_the_next_image_has_the_focus_before_the_reply(browser: Any, served: Any) -> None:
    ids = served.world.pool("photos", 30)
    plain = served.world.daemon.selections.label

    def slow(*given: Any) -> Any:
        time.sleep(0.2)
        return plain(*given)

    served.world.daemon.selections.label = slow
    browser.get(f"{served.url}/pools/photos")
    keys(browser, "j", "1", "2", "3", "1", "u")
    assert focused(browser) == "image-5"
    until(lambda: state(browser, 4) == "labeled")
    wanted = {ids[0]: "cat", ids[1]: "dog", ids[2]: "owl", ids[3]: "cat"}
    assert served.world.catalog.images.labels("photos") == wanted, "u came too soon"
    keys(browser, "u")
    until(lambda: state(browser, 4) == "free")


def test_keys_move_along_rows_and_columns(browser: Any, served: Any) -> None:
    from selenium.webdriver import Keys

    served.world.pool("photos", 20)
    browser.get(f"{served.url}/pools/photos")
    style = "return getComputedStyle(document.querySelector('.tiles')).gridTemplateColumns"
    columns = len(browser.execute_script(style).split())
    assert 4 <= columns <= 8
    keys(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert focused(browser) == f"image-{2 + columns}"
    keys(browser, Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert focused(browser) == "image-1"
    keys(browser, Keys.END)
    assert focused(browser) == "image-20"
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    tabs = "return [...document.querySelectorAll('.tile')].filter(t => t.tabIndex === 0).length"
    assert browser.execute_script(tabs) == 1, "Tab reaches one tile, keys the others"


def test_typing_in_a_field_presses_no_button(browser: Any, served: Any) -> None:
    from selenium.webdriver import Keys

    served.world.manifest = served.world.models.manifest = _of_task(served, "detection")
    ids = served.world.pool("photos", 4)
    browser.get(f"{served.url}/pools/photos")
    keys(browser, "j", "c", "sulk", Keys.ENTER)
    until(lambda: state(browser, 1) == "labeled")
    assert served.world.catalog.images.labels("photos") == {ids[0]: "sulk"}
    assert served.world.catalog.images.counts("photos").skipped == 0
    until(lambda: focused(browser) == "image-2")
    keys(browser, "c", "x", Keys.ESCAPE)
    assert focused(browser) == "image-2" and state(browser, 2) == "free"


def test_a_new_class_is_added_by_a_button(browser: Any, served: Any) -> None:
    from selenium.webdriver import Keys

    many = tuple(f"class {number}" for number in range(200))
    served.world.models.manifest = replace(served.world.manifest, classes=many)
    ids = served.world.pool("photos", 4)
    browser.get(f"{served.url}/pools/photos")
    keys(browser, "j", "c", "clas 7", Keys.ENTER)
    until(lambda: browser.find_elements("css selector", "#image-1 .wrong button"))
    wrong = browser.find_element("css selector", "#image-1 .wrong")
    assert "the most similar one is 'class 7'" in wrong.text and state(browser, 1) == "free"
    wrong.find_element("css selector", "button").click()
    until(lambda: state(browser, 1) == "labeled")
    assert served.world.catalog.images.labels("photos") == {ids[0]: "clas 7"}
    refused = browser.get_log("browser")
    assert len(refused) == 1 and "422" in refused[0]["message"]


def _of_task(served: Any, task: str) -> Any:
    return replace(served.world.manifest, task=task)


def test_help_opens_and_closes(browser: Any, served: Any) -> None:
    from selenium.webdriver import Keys

    served.world.pool("photos", 3)
    browser.get(f"{served.url}/pools/photos")
    shown = "return document.getElementById('keys').open"
    keys(browser, "j", "?")
    assert browser.execute_script(shown)
    keys(browser, "s", Keys.ESCAPE)
    assert (
        not browser.execute_script(shown)
        and served.world.catalog.images.counts("photos").skipped == 0
    )
    browser.find_element("css selector", "[data-keys]").click()
    assert browser.execute_script(shown)
    keys(browser, "?")
    assert not browser.execute_script(shown)


def test_a_batch_is_taken_worked_through_and_returned(browser: Any, served: Any) -> None:
    ids = served.world.pool("photos", 12)
    browser.get(f"{served.url}/pools/photos")
    count = browser.find_element("id", "k")
    count.clear()
    count.send_keys("4")
    browser.find_element("css selector", "#take button").click()
    until(lambda: "/batch" in browser.current_url)
    keys(browser, "j", "1")
    until(lambda: state(browser, 1) == "labeled" and focused(browser) == "image-2")
    keys(browser, "r")
    until(lambda: state(browser, 2) == "free" and focused(browser) == "image-3")
    keys(browser, "u")
    until(lambda: state(browser, 1) == "pending")
    waiting = browser.find_element("css selector", "[data-waiting]")
    assert waiting.text == "3"
    browser.find_element("css selector", "#image-3 button[value=skip]").click()
    until(lambda: state(browser, 3) == "skipped" and waiting.text == "2")
    browser.find_element("css selector", "#return button").click()
    until(lambda: "/batch" not in browser.current_url)
    counts = served.world.catalog.images.counts("photos")
    assert (counts.labeled, counts.pending, counts.skipped) == (0, 0, 1)
    shown = [tile.get_attribute("title") for tile in browser.find_elements("css selector", ".id")]
    assert shown == [id for id in ids if id != ids[2]]


def test_images_with_hostile_ids_are_labeled_and_shown(
    browser: Any, served: Any, hostile: dict[str, bytes]
) -> None:
    served.world.table_pool("hostile", hostile)
    browser.get(f"{served.url}/pools/hostile")
    keys(browser, "j", "o")
    until(lambda: len(browser.window_handles) == 2)
    first, second = browser.window_handles
    browser.switch_to.window(second)
    size = "return document.images.length && document.images[0].naturalWidth"
    until(lambda: browser.execute_script(size) == 64)
    browser.close()
    browser.switch_to.window(first)
    for place in range(1, len(hostile) + 1):
        tile = browser.find_element("id", f"image-{place}")
        keys(browser, "1")
        until(partial(_labeled, tile))
    assert set(served.world.catalog.images.labels("hostile")) == set(hostile)
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 128)"
    until(lambda: browser.execute_script(loaded))


def _labeled(tile: Any) -> bool:
    busy: bool = "busy" in tile.get_attribute("class")
    return tile.get_attribute("data-state") == "labeled" and not busy


def test_an_image_that_cannot_be_shown_says_why(browser: Any, served: Any) -> None:
    served.world.table_pool("photos", {"a": b"no image"})
    browser.get(f"{served.url}/pools/photos")
    why = until(lambda: browser.find_element("css selector", ".thumb.failed .why").text)
    with pytest.raises(Exception, match="not an image") as raised:
        decode_whole(b"no image")
    assert why == str(raised.value)
    image = browser.find_element("css selector", ".thumb img")
    assert image.get_attribute("alt") == f"cannot be shown: {why}"


def test_progress_and_throughput_are_live(browser: Any, served: Any) -> None:
    world = served.world
    world.pool("photos", 5, scored=False)
    job = world.run_job("photos", 10, 100)
    browser.get(f"{served.url}/")
    text = browser.find_element("css selector", "[data-text]")
    assert text.text.startswith("10 of 100 images")
    world.catalog.jobs.progress(job.id, 60, 0, 100)
    world.metrics.queued(7)
    until(lambda: text.text.startswith("60 of 100 images"))
    assert browser.find_element("css selector", "progress").get_attribute("value") == "60"
    assert browser.find_element("css selector", "[data-queue]").text == "7"
    until(lambda: browser.find_element("css selector", "[data-rate]").text == "0")
    world.catalog.jobs.cancel(job.id)
    until(lambda: browser.find_element("css selector", ".state button").text == "Score")


def test_the_page_of_a_pool_named_constructor_does_not_reload(browser: Any, served: Any) -> None:
    served.world.pool("constructor", 3)
    browser.get(f"{served.url}/pools/constructor")
    browser.execute_script("window.loaded = 1")
    browser.execute_async_script(
        "const done = arguments[0]; update().then(() => setTimeout(done, 300))"
    )
    assert browser.execute_script("return window.loaded") == 1


def test_an_error_is_shown_at_the_image(browser: Any, served: Any) -> None:
    ids = served.world.pool("photos", 3)
    browser.get(f"{served.url}/pools/photos")
    plain = served.world.daemon.selections.label

    def refuse(*given: Any) -> int:
        from lloss.serve.daemon.errors import RequestError

        raise RequestError(507, "the disk is <full>; make room")

    served.world.daemon.selections.label = refuse
    keys(browser, "j", "1")
    wrong = until(lambda: browser.find_element("css selector", "#image-1 .wrong").text)
    assert wrong == "the disk is <full>; make room" and state(browser, 1) == "free"
    served.world.daemon.selections.label = plain
    keys(browser, "k", "1")
    until(lambda: state(browser, 1) == "labeled")
    assert browser.find_elements("css selector", ".wrong") == []
    assert list(served.world.catalog.images.labels("photos")) == [ids[0]]
    refused = browser.get_log("browser")  # the browser notes the 507; nothing else is there
    assert len(refused) == 1 and "507" in refused[0]["message"]


def test_the_pages_work_without_scripts(browser: Any, served: Any) -> None:
    ids = served.world.pool("photos", 5)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"{served.url}/pools/photos")
        browser.find_element("css selector", "#image-2 button[value=skip]").click()
        until(lambda: "did=skipped" in browser.current_url)
        assert browser.find_element("css selector", ".did").text.split() == [
            "Skipped:",
            "0001.png",
            "Undo",
        ]
        assert not browser.find_element("css selector", "[data-keys]").is_displayed()
        browser.find_element("css selector", ".did button").click()
        until(lambda: "did=free" in browser.current_url)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    shown = [tile.get_attribute("title") for tile in browser.find_elements("css selector", ".id")]
    assert shown == ids


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_the_window(browser: Any, served: Any, width: int) -> None:
    served.world.pool("a" * 80, 30)
    served.world.table_pool("photos", {"x" * 4000: b"", "y.png": b"no image"})
    served.world.pool("busy", 3, scored=False)
    served.world.run_job("busy", 1, 2_000_000)
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for path in ("/", f"/pools/{'a' * 80}", "/pools/photos", "/pools/busy"):
            browser.get(f"{served.url}{path}")
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, path
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
