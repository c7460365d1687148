"""Labeling configurations, hostile ones too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lloss.serve.daemon.labelstudio import labeling_config as config_module
from lloss.serve.daemon.labelstudio.labeling_config import read_config
from starlette.testclient import TestClient

from .messages import CONFIG, task


def test_controls_of_images_are_found_wherever_they_stand() -> None:
    config = read_config(
        '<View><Choices name="late" toName="i"><View><Choice value="no"/></View>'
        '<Choice value="a"><Choice value="nested"/></Choice></Choices>'
        '<Choices name="t" toName="text"><Choice value="a"/></Choices>'
        '<Choices name="r" toName="i" perRegion="true"><Choice value="b"/></Choices>'
        '<Choices name="two" toName="text, i"><Choice value="b"/></Choices>'
        '<Text name="text" value="$t"/><Image name="i" value="$pic"/></View>'
    )
    assert config.images == ("pic",)
    assert [(control.name, dict(control.stored)) for control in config.controls] == [
        ("late", {"a": "a"}), ("two", {"b": "b"}),
    ]  # fmt: skip
    assert config.chosen("b")[0]["from_name"] == "two" and config.chosen("nested") == []


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = {
    "billion laughs": f'<!DOCTYPE v [<!ENTITY l0 "ha">{LAUGHS}]><View>&l9;</View>',
    "a file": '<!DOCTYPE v [<!ENTITY f SYSTEM "file:///etc/passwd">]><View>&f;</View>',
    "a file in an attribute": '<!DOCTYPE v [<!ENTITY f "x">]><Image name="&f;" value="$i"/>',
    "a DTD": '<!DOCTYPE v SYSTEM "http://127.0.0.1:9/x.dtd"><View/>',
    "deep": "<View>" * 100_000,
    "deep and closed": "<View>" * 5_000 + "</View>" * 5_000,
    "long": f"<View>{CONFIG}{' ' * (1 << 20)}</View>",
    "broken": CONFIG[:-3],
    "empty": "",
    "no XML": "image: $image",
    "a NUL": CONFIG.replace("cat", "\0"),
    "half a character": CONFIG.replace("cat", "\ud800"),
    "other types": 3,
    "none": None,
    "a list": [CONFIG],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_configurations_cost_the_result_but_not_the_score(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    elements, begin = 0, config_module._Tree._start

    def counted(*given: Any) -> None:
        nonlocal elements
        elements += 1
        begin(*given)

    monkeypatch.setattr(config_module._Tree, "_start", counted)
    config_module._read.cache_clear()
    body = json.dumps({"tasks": [task("1.png")], "label_config": HOSTILE[kind]})
    (result,) = client.post("/labelstudio/predict", content=body).json()["results"]
    assert result["result"] == [] and 0 < result["score"] < 1
    assert elements <= 65
