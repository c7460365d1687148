"""Invalid settings are refused by the option that gave them, with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lloss.serve.daemon.settings import Limits, ServeSettings

from lloss.errors import SettingsError


@pytest.mark.parametrize(
    ("settings", "limits", "message"),
    [
        ({}, {"request_seconds": 0.0}, "--timeout 0: must be above 0"),
        ({}, {"body_bytes": 0}, "--max-body 0: must be above 0"),
        ({}, {"queue_images": -1}, "--queue -1: must be above 0"),
        ({}, {"body_seconds": float("nan")}, "limit body_seconds nan: must be above 0"),
        ({"drain_seconds": -0.5}, {}, "--drain -0.5: must not be below 0"),
        ({"job_batch_size": -2}, {}, "--job-batch-size -2: must not be below 0"),
        ({"threads": -1}, {}, "--threads -1: must not be below 0"),
        ({"pending_seconds": 0.0}, {}, "--pending 0: must be above 0"),
    ],
)
def test_an_error_names_the_option(
    settings: dict[str, Any], limits: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        ServeSettings(model=Path("m"), data_dir=Path("d"), limits=Limits(**limits), **settings)
    assert str(refused.value) == message


@pytest.mark.parametrize("token", ["0123456789 abcdef", "0123456789abcdeß"])
def test_a_token_that_a_header_cannot_hold(token: str) -> None:
    with pytest.raises(SettingsError, match="use letters and digits, such as `openssl rand"):
        ServeSettings(model=Path("m"), data_dir=Path("d"), token=token)
