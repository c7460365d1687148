"""The model routes: their replies, and what a reload logs; the model is a fake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lloss.serve.daemon.api import model


class Models:
    sha256, provider, note = "ab" * 32, "cpu", "cuda: the driver is too old"
    current = property(lambda self: self)
    manifest = SimpleNamespace(to_json=lambda: '{"task": "t"}')

    def reload(self) -> Any:
        return self.sha256, "cd" * 32


@pytest.fixture
def daemon() -> Any:
    return SimpleNamespace(
        models=Models(),
        settings=SimpleNamespace(model=Path("m.onnx")),
        jobs=SimpleNamespace(prune=lambda: None),
    )


def test_the_model_says_why_nothing_faster_computes_it(daemon: Any) -> None:
    assert model.model(daemon) == {
        "sha256": "ab" * 32,
        "provider": "cpu",
        "note": "cuda: the driver is too old",
        "path": "m.onnx",
        "manifest": {"task": "t"},
    }


def test_a_reload_is_logged_with_what_computes_the_model_now(daemon: Any, log: Any) -> None:
    model.reload_model(daemon)
    daemon.models.note = ""
    model.reload_model(daemon)
    warned, well = (json.loads(line) for line in log.getvalue().splitlines())
    assert (warned["level"], warned["note"]) == ("warning", "cuda: the driver is too old")
    assert (well["level"], well["note"]) == ("info", "")
    assert warned["event"] == well["event"] == "model_reloaded"
