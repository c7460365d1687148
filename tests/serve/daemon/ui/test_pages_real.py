"""The pages of ``lloss serve`` itself, as a process with a real model, in a real browser.

The browser comes by a name over plain HTTP, which it trusts less than loopback: it sends no
``Sec-Fetch-Site``, so that only ``Origin`` distinguishes a form of ours from another site's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..processes import Process
from ..waiting import until

TOKEN = "a-token-of-some-length"
NAME = "scores.example"


@pytest.fixture
def daemon(onnx_file: Path, photos: Path, tmp_path: Path) -> Iterator[Process]:
    """With a pool."""
    options = (f"--allowed-host={NAME}", f"--pool-root={photos}")
    with contextlib.closing(Process(tmp_path, *options, model=onnx_file, token=TOKEN)) as daemon:
        daemon.ready()
        assert daemon.ask("PUT", "/v1/pools/photos", {"uri": str(photos)})[0] == 200
        yield daemon


@pytest.fixture
def browser(chromium: Any, daemon: Process) -> Iterator[Any]:
    """With the token as its password, and no complaint on its console when the test ends."""
    chromium.get(f"http://any:{TOKEN}@{NAME}:{daemon.port}")
    chromium.get_log("browser")
    chromium.get(f"http://{NAME}:{daemon.port}/pools/photos")
    yield chromium
    complaints = [entry["message"] for entry in chromium.get_log("browser")]
    chromium.delete_all_cookies()
    chromium.get("about:blank")
    # Of plain HTTP the browser says that it leaves a header aside.
    assert [one for one in complaints if "Cross-Origin-Opener-Policy" not in one] == []


def one(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def text(browser: Any, selector: str) -> str:
    """Of an element that a page may be about to replace."""
    found: str = browser.execute_script(
        "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''",
        selector,
    )
    return found


def test_a_pool_is_scored_labeled_and_handed_out(browser: Any, daemon: Process) -> None:
    assert text(browser, "h1") == "Not scored yet"
    one(browser, "#job button").click()
    until(lambda: text(browser, "h1") == "Label these next")
    best = daemon.ask("GET", "/v1/pools/photos/preview?k=1")[1]["images"][0]
    assert one(browser, "#image-1 .id").get_attribute("title") == best["id"]
    assert text(browser, "#image-1 .guess") in ("bright", "dark", "red")
    one(browser, "#image-1 option[value=dark]").click()
    one(browser, "#image-1 button[value=label]").click()
    until(lambda: one(browser, "#image-1").get_attribute("data-state") == "labeled")
    assert daemon.ask("GET", "/v1/pools/photos/labels")[1]["labels"][0]["id"] == best["id"]
    one(browser, ".take button").click()
    until(lambda: "/batch" in browser.current_url)
    assert daemon.ask("GET", "/v1/pools/photos/pending")[1]["total"] == 24
    assert daemon.metric("lloss_selected_images_total") == 24
    assert daemon.metric("lloss_labeled_images_total") == 1
    daemon.until(lambda: '"/v1/pools/photos/pending"' in daemon.log_text())  # and all before it
    for part in ("/static/", "/thumb", "/page/status"):
        assert part not in daemon.log_text()
