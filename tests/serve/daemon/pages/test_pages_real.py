"""The pages of ``lloss serve`` itself, as a process with a real model, in a real browser.

The browser comes by a name over plain HTTP, which it trusts less than loopback: it sends no
``Sec-Fetch-Site``, so that ``Origin`` is all that tells a form of ours from another site's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.lib.format import open_memmap

TOKEN = "a-token-of-some-length"
NAME = "scores.example"


class Daemon:
    """A daemon that was started, with a pool that is scored in a moment and one that takes long."""

    def __init__(self, artifact: Path, photos: Path, folder: Path) -> None:
        shape = (1_000_000, 8, 8, 3)  # a file with a hole: it takes no room
        open_memmap(folder / "long.npy", "w+", np.uint8, shape)
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lloss", "serve", str(artifact), "--provider=cpu",
                 f"--data-dir={folder / 'data'}", "--port=0", f"--allowed-host={NAME}",
                 f"--pool-root={photos}", f"--pool-root={folder}"],
                stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "LLOSS_TOKEN": TOKEN},
            )  # fmt: skip
        assert self.process.stdout is not None
        url = self.process.stdout.readline().strip()
        self.url = url.replace("127.0.0.1", NAME)
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"})
        until(lambda: self.client.get("/readyz").status_code == 200, 20)
        for name, uri in (("photos", photos), ("long", folder / "long.npy")):
            assert self.client.put(f"/v1/pools/{name}", json={"uri": str(uri)}).status_code == 200

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def until(check: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def daemon(
    artifact: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    daemon = Daemon(artifact, photos, tmp_path_factory.mktemp("real"))
    yield daemon
    daemon.close()


@pytest.fixture
def browser(chromium: Any, daemon: Daemon) -> Iterator[Any]:
    """Logged in; with no complaint on its console when the test ends."""
    chromium.get_log("browser")
    chromium.get(f"{daemon.url}/pools/photos")
    chromium.find_element("id", "token").send_keys(TOKEN)
    chromium.find_element("css selector", ".login button").click()
    until(lambda: chromium.current_url == f"{daemon.url}/pools/photos")
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


def test_a_token_that_is_wrong_is_asked_for_again(chromium: Any, daemon: Daemon) -> None:
    chromium.get(f"{daemon.url}/pools/photos?page=1")
    assert chromium.title == "Log in · lloss"
    chromium.find_element("id", "token").send_keys("a-guess-of-some-length")
    one(chromium, ".login button").click()
    until(lambda: text(chromium, "#why") == "That is not the token.")
    assert one(chromium, "[name=next]").get_attribute("value") == "/pools/photos?page=1"


def test_a_pool_is_scored_labeled_and_handed_out(browser: Any, daemon: Daemon) -> None:
    assert text(browser, "h1") == "Not scored yet"
    one(browser, "#job button").click()
    until(lambda: text(browser, "h1") == "Label these next")
    tiles = browser.find_elements("css selector", ".tile")
    assert len(tiles) == 60
    shown = "return document.querySelector('#image-1 img').naturalWidth"
    assert until(lambda: browser.execute_script(shown)) > 128, "a placeholder is smaller"
    best = daemon.client.get("/v1/pools/photos/preview?k=1").json()["images"][0]
    assert one(browser, "#image-1 .id").get_attribute("title") == best["id"]
    assert text(browser, "#image-1 .guess") in ("bright", "dark", "red")
    ticks = [mark.text for mark in browser.find_elements("css selector", "[text-anchor=end]")]
    counts = [float(tick) for tick in ticks if re.fullmatch(r"[\d.]+", tick)]
    assert counts and all(count == int(count) for count in counts), ticks

    one(browser, "#image-1 button[value=label]").click()
    until(lambda: one(browser, "#image-1").get_attribute("data-state") == "labeled")
    assert daemon.client.get("/v1/pools/photos/labels").json()["labels"][0]["id"] == best["id"]
    k = one(browser, "#k")
    k.clear()
    k.send_keys("7")
    one(browser, ".take button").click()
    until(lambda: "/batch" in browser.current_url)
    assert len(browser.find_elements("css selector", ".tile")) == 7
    assert daemon.client.get("/v1/pools/photos/pending").json()["total"] == 7
    metrics = daemon.client.get("/metrics").text
    assert "lloss_selected_images_total 7.0" in metrics
    assert "lloss_labeled_images_total 1.0" in metrics
    logged = daemon.log.read_text()
    assert "/static/" not in logged and "/thumb" not in logged and "/page/status" not in logged


def test_a_job_is_seen_to_go_on(browser: Any, daemon: Daemon) -> None:
    browser.get(f"{daemon.url}/pools/long")
    one(browser, "#job button").click()
    until(lambda: text(browser, "h1") == "Being scored")
    told = re.compile(r"[\d,]+ of 1,000,000 images · [\d,]+ a second · \d+ (s|min) left")
    until(lambda: told.fullmatch(text(browser, "[data-told]").strip()))

    def value() -> float:
        bar = "return document.querySelector('#job progress')?.value"
        return float(browser.execute_script(bar) or 0)

    before = until(value)
    until(lambda: value() > before)
    browser.get(f"{daemon.url}/")
    until(lambda: told.fullmatch(text(browser, "[data-row=long] [data-told]").strip()))
    until(lambda: text(browser, "[data-rate]") not in ("", "–", "0"))
    assert text(browser, "[data-jobs]") == "1"
    browser.get(f"{daemon.url}/pools/long")
    one(browser, "form[action$=cancel] button").click()
    until(lambda: text(browser, "h1") == "Not scored yet")
    assert daemon.client.get("/v1/jobs").json()["jobs"][0]["state"] == "cancelled"
