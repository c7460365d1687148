from __future__ import annotations

from typing import Any

import pytest
from lloss.serve.daemon.labelstudio.labeling_config import read_config

from .messages import CONFIG


def test_controls_of_images_are_found_anywhere() -> None:
    controls = read_config(
        '<View><Choices name="late" toName="i"><View><Choice value="no"/></View>'
        '<Choice value="a"><Choice value="nested"/></Choice></Choices>'
        '<Choices name="t" toName="text"><Choice value="a"/></Choices>'
        '<Choices name="r" toName="i" perRegion="true"><Choice value="b"/></Choices>'
        '<Choices name="two" toName="text, i"><Choice value="b" alias="bee"/></Choices>'
        '<Text name="text" value="$t"/><Image name="i" value="$pic"/></View>'
    )
    assert [(control.name, dict(control.stored)) for control in controls] == [
        ("late", {"a": "a"}), ("two", {"b": "bee", "bee": "bee"}),
    ]  # fmt: skip
    assert controls[1].result("nested") == []
    assert controls[1].result("b") == [
        {"from_name": "two", "to_name": "i", "type": "choices", "value": {"choices": ["bee"]}}
    ]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = {
    "billion laughs": f'<!DOCTYPE v [<!ENTITY l0 "ha">{LAUGHS}]><View>&l9;</View>',
    "a file": '<!DOCTYPE v [<!ENTITY f SYSTEM "file:///etc/passwd">]><View>&f;</View>',
    "a DTD": '<!DOCTYPE v SYSTEM "http://127.0.0.1:9/x.dtd"><View/>',
    "deep": "<View>" * 100_000,
    "deep and closed": "<V>" * 100_000 + "</V>" * 100_000,
    "long": f"<View>{CONFIG}{' ' * (1 << 20)}</View>",
    "broken": CONFIG[:-3],
    "empty": "",
    "not XML": "image: $image",
    "a NUL": CONFIG.replace("cat", "\0"),
    "a lone surrogate": CONFIG.replace("cat", "\ud800"),
    "a number": 3,
    "null": None,
    "a list": [CONFIG],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_configuration_is_empty(kind: str) -> None:
    config: Any = HOSTILE[kind]
    assert read_config(config) == ()
