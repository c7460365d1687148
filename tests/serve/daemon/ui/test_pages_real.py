"""The pages of ``lloss serve`` itself, as a process with a real model, in a real browser.

The browser comes by a name over plain HTTP, which it trusts less than loopback: it sends no
``Sec-Fetch-Site``, so that only ``Origin`` distinguishes a form of ours from another site's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.format import open_memmap

from ..processes import Process
from ..waiting import until

TOKEN = "a-token-of-some-length"
NAME = "scores.example"


@pytest.fixture(scope="module")
def daemon(
    artifact: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """With a pool that is scored at once and one that takes long."""
    folder = tmp_path_factory.mktemp("real")
    shape = (1_000_000, 8, 8, 3)  # a file with a hole: it takes no disk space
    open_memmap(folder / "long.npy", "w+", np.uint8, shape)
    options = (f"--allowed-host={NAME}", f"--pool-root={photos}")
    with contextlib.closing(Process(folder, *options, model=artifact, token=TOKEN)) as daemon:
        daemon.ready()
        for name, uri in (("photos", photos), ("long", folder / "long.npy")):
            assert daemon.ask("PUT", f"/v1/pools/{name}", {"uri": str(uri)})[0] == 200
        yield daemon


@pytest.fixture(scope="module")
def site(daemon: Process) -> str:
    """Where the browser finds it."""
    return f"http://{NAME}:{daemon.port}"


@pytest.fixture
def browser(chromium: Any, site: str) -> Iterator[Any]:
    """With the token as its password, and no complaint on its console when the test ends."""
    chromium.get(site.replace("//", f"//any:{TOKEN}@"))
    chromium.get_log("browser")
    chromium.get(f"{site}/pools/photos")
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


def test_the_progress_of_a_job_is_live(browser: Any, daemon: Process, site: str) -> None:
    browser.get(f"{site}/pools/long")
    one(browser, "#job button").click()
    progress = re.compile(r"[\d,]+ of 1,000,000 images · [\d,]+ a second · \d+ (s|min) left")
    first = until(lambda: progress.fullmatch(text(browser, "[data-text]").strip()))
    until(lambda: text(browser, "[data-text]").strip() != first[0])
    one(browser, "form[action$=cancel] button").click()
    until(lambda: text(browser, "h1") == "Not scored yet")
    assert daemon.ask("GET", "/v1/jobs")[1]["jobs"][0]["state"] == "cancelled"
