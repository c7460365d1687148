"""Label Studio's protocol, with what label-studio 1.23.2 really sent (``recorded/``)."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from lloss.serve.daemon.catalog.catalog import Catalog, PoolScores
from lloss.serve.daemon.failures import RequestError, status_of
from lloss.serve.daemon.labelstudio import config as config_module
from lloss.serve.daemon.labelstudio import labels_of, router, routes, tasks_of
from lloss.serve.daemon.labelstudio.coco import coco_of
from lloss.serve.daemon.labelstudio.config import read_config
from lloss.serve.daemon.metrics import DaemonMetrics
from lloss.serve.daemon.net.access import Access
from lloss.serve.daemon.pools.pools import Pools
from lloss.serve.daemon.pools.selections import HandedOut, Ranked, Selections
from lloss.serve.daemon.scoring.batcher import Answer
from lloss.serve.daemon.scoring.models import Scored
from lloss.serve.daemon.settings import ServeSettings
from scipy.stats import percentileofscore
from starlette.testclient import TestClient

from lloss import Scorer
from lloss.annotations import Problems
from lloss.annotations.objects import read_objects
from lloss.errors import ImageError, LabelError, LlossError
from lloss.images import decode
from lloss.scores import ScoresFolder, scores_table

RECORDED = Path(__file__).parent / "recorded"
CONFIG = (
    '<View><Image name="img" value="$image"/><Choices name="kind" toName="img">'
    '<Choice value="cat"/><Choice value="hund" alias="dog"/></Choices></View>'
)
CLASSES = ("cat", "dog", "cow")


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text(encoding="utf-8"))


def write_scores(path: Path, losses: Sequence[float], sha256: str, part: int = 10_000) -> None:
    path.mkdir(parents=True)
    folder = ScoresFolder(path)
    count = len(losses)
    values = np.asarray(losses, np.float32)
    for number, start in enumerate(range(0, count, part)):
        rows = range(start, min(start + part, count))
        columns = {
            "loss": values[start : rows.stop],
            "prediction": np.array([row % 3 for row in rows], np.float32),
        }
        table = scores_table([f"{row}.png" for row in rows], columns)
        folder.write_part(number, table, [])
    folder.write_skipped()
    sizes = {"scored": count, "skipped": 0, "part_size": part}
    folder.write_run({"state": "complete", "model_sha256": sha256, **sizes})


class Models:
    """A model that serves; scoring by a real scorer."""

    def __init__(self) -> None:
        self.sha256 = "ab" * 32
        outputs = {"loss": (), "prediction": ()}
        self.manifest: Any = SimpleNamespace(
            task="classification", classes=CLASSES, outputs=outputs
        )
        self.scorer: Scorer | None = None
        self.asked: list[int] = []

    async def score(self, images: Sequence[bytes], seconds: float) -> Scored:
        assert self.scorer is not None and seconds > 0
        self.asked.append(len(images))
        errors, decoded = {}, []
        for row, image in enumerate(images):
            try:
                decoded.append(decode(image, self.scorer.manifest.image))
            except ImageError as error:
                errors[row] = str(error)
                decoded.append(np.zeros((8, 8, 3), np.uint8))
        columns = {k: v.copy() for k, v in self.scorer.score(np.stack(decoded)).columns.items()}
        columns["loss"][list(errors)] = np.nan
        columns["prediction"][list(errors)] = np.nan
        return Scored(Answer(columns, errors), self.sha256, self.scorer.manifest)


class Daemon:
    """The parts of a daemon, real ones but for the model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = ServeSettings(
            model=folder / "model.onnx", data_dir=folder / "data", pool_roots=(str(folder),)
        )
        self.catalog = Catalog(self.settings.data_dir)
        self.pools = Pools(self.settings, self.catalog)
        self.selections = Selections(self.settings, self.catalog, self.pools, DaemonMetrics())
        self.models = Models()
        self.problem = ""

    def not_ready(self) -> str:
        return self.problem

    def put(self, name: str, losses: Sequence[float], sha256: str = "ab" * 32) -> Path:
        """A pool of the images 0.png, 1.png and so on with these losses; its scores."""
        listed = self.folder / f"{name}.csv"
        listed.write_text("id,path\n" + "".join(f"{row}.png,x\n" for row in range(len(losses))))
        scores = self.folder / f"scores {len(list(self.folder.iterdir()))}"
        write_scores(scores, losses, sha256)
        self.catalog.put_pool(name, str(listed), PoolScores(scores, sha256, len(losses), 0))
        return scores

    @property
    def state(self) -> dict[str, str]:
        """What became of the images of the pool ``wild``."""
        states = self.catalog.images.states("wild", [f"{row}.png" for row in range(5)])
        return {
            id: f"label:{row.label}" if row.state == "labeled" else row.state
            for id, row in states.items()
            if row.state != "free"
        }


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    daemon.put("wild", [3, 1, 4, 1, 5])
    daemon.catalog.put_pool("raw", str(tmp_path / "wild.csv"))
    yield daemon
    daemon.catalog.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[TestClient]:
    app = FastAPI()
    app.state.daemon = daemon
    app.include_router(router)

    def explain(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LlossError)
        return JSONResponse({"error": str(error)}, status_of(error))

    app.add_exception_handler(LlossError, explain)
    with TestClient(app) as client:
        yield client


def task(id: str | None = None, pool: str = "wild", **fields: Any) -> dict[str, Any]:
    data = {"image": "http://127.0.0.1/x"} | ({"lloss_pool": pool, "lloss_id": id} if id else {})
    return {"id": 1, "data": data, "predictions": [], **fields}


def ask(client: TestClient, *tasks: Any, config: Any = CONFIG, **fields: Any) -> list[Any]:
    body = {"tasks": list(tasks), "label_config": config, "params": {"context": None}} | fields
    reply = client.post("/labelstudio/predict", json=body)
    assert reply.status_code == 200, reply.text
    results: list[Any] = reply.json()["results"]
    assert len(results) == len(tasks)
    return results


# Access


@pytest.mark.parametrize(
    ("path", "credentials", "admitted"),
    [
        ("/labelstudio/predict", b"who:the-token:of-all", True),
        ("/labelstudio/health", b":the-token:of-all", True),
        ("/labelstudio/predict", b"the-token:of-all", False),  # a user and a password
        ("/labelstudio/predict", b"who:the-token", False),
        ("/labelstudio/predict", b"who:", False),
        ("/labelstudio/predict", b"who", False),
        ("/labelstudiox", b"who:the-token:of-all", False),
        ("/v1/pools", b"who:the-token:of-all", False),
    ],
)
def test_the_token_is_label_studios_password(
    tmp_path: Path, path: str, credentials: bytes, admitted: bool
) -> None:
    settings = ServeSettings(model=tmp_path / "m", data_dir=tmp_path, token="the-token:of-all")
    for scheme in (b"Basic ", b"basic  "):
        headers = {b"authorization": scheme + base64.b64encode(credentials)}
        assert Access(settings).admits({"path": path}, headers) is admitted
    for broken in (b"Basic", b"Basic ", b"Basic \xff", b"Basic dG9r$$$", b"Basic " + credentials):
        assert not Access(settings).admits({"path": path}, {b"authorization": broken})


# Health, setup, versions


def test_health_setup_and_versions(client: TestClient) -> None:
    for path in ("", "/", "/health"):
        assert client.get(f"/labelstudio{path}").json()["status"] == "UP"
    body = {"project": "1.2", "schema": CONFIG, "access_token": "secret", "extra_params": None}
    assert client.post("/labelstudio/setup", json=body).json() == {"model_version": "ab" * 6}
    assert client.get("/labelstudio/versions").json() == {"versions": ["ab" * 6]}


def test_a_daemon_that_is_not_ready_says_why(client: TestClient, daemon: Daemon) -> None:
    daemon.problem, daemon.models.sha256 = "the model is loading", ""
    for method, path in (("GET", "health"), ("POST", "setup"), ("GET", "versions")):
        reply = client.request(method, f"/labelstudio/{path}", json={})
        assert reply.status_code == 503 and reply.json() == {"error": "the model is loading"}


def test_training_is_refused_with_the_remedy(client: TestClient) -> None:
    for path, body in (("train", {}), ("webhook", {"action": "START_TRAINING", "project": {}})):
        reply = client.post(f"/labelstudio/{path}", json=body)
        assert reply.status_code == 409 and "lloss train" in reply.json()["error"]


# Predictions


def test_the_recorded_request_is_answered_by_the_pool(client: TestClient) -> None:
    reply = client.post("/labelstudio/predict", json=recorded("predict.json"))
    results = reply.json()["results"]
    assert results[5] == []  # of no pool: no prediction, for one without score came first
    losses = [3, 1, 4, 1, 5]
    for loss, result in zip(losses, results):
        rank = percentileofscore(losses, loss, kind="mean") / 100
        assert result["score"] == pytest.approx(1 - rank)
        assert result["model_version"] == "ab" * 6
    best_first = sorted(range(5), key=lambda row: results[row]["score"])
    assert best_first[:3] == [4, 2, 0]
    assert results[1]["result"] == [
        {"from_name": "kind", "to_name": "img", "type": "choices", "value": {"choices": ["dog"]}}
    ]
    assert results[2]["result"] == []  # a class that the project does not offer


def test_a_choice_is_written_as_its_alias(client: TestClient) -> None:
    assert ask(client, task("1.png"))[0]["result"][0]["value"] == {"choices": ["dog"]}


def test_ten_thousand_tasks_are_answered_in_one_pass(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = np.random.default_rng(0).normal(size=30_000).round(2)
    daemon.put("many", losses.tolist(), "cd" * 32)
    rows = np.random.default_rng(1).permutation(30_000)[:10_000].tolist()
    passes, scan = 0, ScoresFolder.scan

    def counted(self: ScoresFolder, columns: Sequence[str]) -> Any:
        nonlocal passes
        passes += 1
        return scan(self, columns)

    monkeypatch.setattr(ScoresFolder, "scan", counted)
    results = ask(client, *(task(f"{row}.png", "many") for row in rows))
    assert passes == 1
    ranks = percentileofscore(losses.astype(np.float32), losses[rows].astype(np.float32), "mean")
    np.testing.assert_allclose([one["score"] for one in results], 1 - ranks / 100, atol=1e-9)
    assert {one["model_version"] for one in results} == {"cd" * 6}
    assert all(one["result"] == [] for one in results)  # made by a model that does not serve now


def test_scores_that_were_made_anew_are_ranked_anew(client: TestClient, daemon: Daemon) -> None:
    before = ask(client, task("0.png"))[0]["score"]
    daemon.put("wild", [9, 1, 4, 1, 5])
    assert ask(client, task("0.png"))[0]["score"] < before


def test_what_is_not_known_gets_no_prediction(client: TestClient) -> None:
    wrong = [
        task(), task("nowhere.png"), task("0.png", "raw"), task("0.png", "gone"), None, 3, [],
        {"data": []}, {"data": {"lloss_pool": 3, "lloss_id": "0.png"}}, {},
        {"data": {"lloss_pool": "wild", "lloss_id": ["0.png"]}},
        {"data": {"lloss_pool": "wild", "lloss_id": "\ud800"}},
        {"data": {"lloss_pool": "\ud800", "lloss_id": "0.png"}},
    ]  # fmt: skip
    body = json.dumps({"tasks": [*wrong, task("0.png")]})
    results = client.post("/labelstudio/predict", content=body).json()["results"]
    assert results[:-1] == [[]] * len(wrong) and results[-1]["score"] > 0


def test_a_prediction_that_is_there_already_is_not_given_again(client: TestClient) -> None:
    mine, other = {"model_version": "ab" * 6, "score": 0.3}, {"model_version": "v0"}
    assert ask(client, task("0.png", predictions=[other, mine])) == [[]]
    assert ask(client, task("0.png", predictions=[other]))[0]["score"] > 0
    for odd in ("?", 5, {}, {"a": 1}, True, [None, 3]):
        assert ask(client, task("0.png", predictions=odd))[0]["score"] > 0


def test_an_annotator_who_waits_always_gets_an_answer(client: TestClient) -> None:
    context = {"params": {"context": {"result": []}}}
    assert ask(client, task(), **context) == [{"result": [], "model_version": ""}]
    shown = task("0.png", predictions=[{"model_version": "ab" * 6}])
    assert ask(client, shown, **context)[0]["score"] > 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_object_is_refused(client: TestClient, body: bytes) -> None:
    for path in ("predict", "webhook"):
        reply = client.post(f"/labelstudio/{path}", content=body)
        assert reply.status_code == 400 and "\n" not in reply.json()["error"]


@pytest.mark.parametrize("tasks", [None, {}, "x", 3])
def test_tasks_are_a_list(client: TestClient, tasks: Any) -> None:
    reply = client.post("/labelstudio/predict", json={"tasks": tasks})
    assert reply.status_code == 422 and "tasks" in reply.json()["error"]


def test_of_tasks_there_is_a_most(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "IDS_MOST", 3)
    assert len(ask(client, *[task("0.png")] * 3)) == 3
    reply = client.post("/labelstudio/predict", json={"tasks": [task("0.png")] * 4})
    assert reply.status_code == 422
    assert reply.json() == {"error": "4 tasks: give at most 3 in a request"}


def test_what_takes_long_is_made_beside_the_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[str] = []

    class Noted(JSONResponse):
        def render(self, content: Any) -> bytes:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                beside.append("json")
            return super().render(content)

    monkeypatch.setattr(routes, "JSONResponse", Noted)
    ask(client, task("0.png"))
    client.post("/labelstudio/coco?pool=wild", json=recorded("export.json"))
    assert beside == ["json"] * 2


def test_damaged_scores_are_an_error_and_not_a_guess(client: TestClient, daemon: Daemon) -> None:
    scores = daemon.catalog.pool("wild").scores
    assert scores is not None
    (scores / "part-00000.parquet").write_bytes(b"PAR1 no more")
    reply = client.post("/labelstudio/predict", json={"tasks": [task("0.png")]})
    assert reply.status_code == 409 and "part-00000.parquet" in reply.json()["error"]


# Images in the task


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def test_images_in_tasks_are_scored_live(
    client: TestClient, daemon: Daemon, artifact: Path, encoded: Any
) -> None:
    daemon.models.scorer = scorer = Scorer(artifact, device="cpu", batch_size=16)
    random = np.random.default_rng(3)
    pictures = random.integers(0, 256, (70, 8, 8, 3), np.uint8)
    names = "".join(f'<Choice value="{name}"/>' for name in scorer.manifest.classes)
    config = (
        '<View><Image name="i" value="$photo"/>'
        f'<Choices name="c" toName="i">{names}</Choices></View>'
    )
    tasks = [{"data": {"photo": uri(encoded(picture))}} for picture in pictures]
    broken = {"data": {"photo": uri(b"no image")}}
    results = ask(client, *tasks, broken, config=config)
    assert daemon.models.asked == [64, 7]
    assert results[-1] == []
    expected = scorer.score(pictures)
    order = np.argsort([one["score"] for one in results[:-1]], kind="stable")
    np.testing.assert_array_equal(order, np.argsort(-expected.loss, kind="stable"))
    assert all(0 < one["score"] < 1 for one in results[:-1])
    guesses = [one["result"][0]["value"]["choices"][0] for one in results[:-1]]
    classes = scorer.manifest.classes
    assert guesses == [classes[int(one)] for one in expected.columns["prediction"]]


@pytest.mark.parametrize(
    "image",
    ["http://127.0.0.1/x.png", "/data/upload/x.png", "file:///etc/passwd", "data:text/html,x",
     "data:image/png,raw", "data:image/png;base64,", "data:image/png;base64,§", "data:image/", 3],
)  # fmt: skip
def test_nothing_is_fetched_and_no_other_uri_is_read(client: TestClient, image: Any) -> None:
    assert ask(client, {"data": {"image": image}}) == [[]]  # the scorer, None, would be missed


# Labeling configurations


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


# The webhook


def tell(client: TestClient, event: Mapping[str, Any], code: int = 201) -> Any:
    reply = client.post("/labelstudio/webhook", content=json.dumps(event))
    assert reply.status_code == code, reply.text
    return reply.json()


def test_the_recorded_events_mark_and_unmark(client: TestClient, daemon: Daemon) -> None:
    events = iter(recorded("webhooks.json"))
    zero, one, two = {"0.png": "label:dog"}, {"1.png": "label:dog"}, {"2.png": "label:"}
    three, four = {"3.png": "label:cat"}, {"4.png": "label:cat"}
    steps: list[tuple[str, dict[str, str]]] = [
        ("ANNOTATION_CREATED", {"0.png": "label:cat"}),
        ("ANNOTATION_UPDATED", zero),
        ("ANNOTATION_CREATED", zero | {"1.png": "skipped"}),
        ("ANNOTATION_CREATED", zero | one),
        ("ANNOTATION_CREATED", zero | one | two),
        ("ANNOTATION_CREATED", zero | one | two | three),
        ("ANNOTATIONS_DELETED", zero | one | two),
        ("ANNOTATIONS_CREATED", zero | one | two | four),
        ("ANNOTATIONS_DELETED", one | two | four),
    ]
    for action, expected in steps:
        event = next(events)
        assert event["action"] == action
        tell(client, event)
        assert daemon.state == expected
    before = daemon.state
    for event in events:  # a deleted task takes no label back: its annotation may be exported
        tell(client, event, 200)
    assert daemon.state == before


def event(number: int, id: str = "0.png", **fields: Any) -> dict[str, Any]:
    choice = {"type": "choices", "value": {"choices": [fields.pop("choice", "cat")]}}
    annotation = {"id": number, "result": [choice], "was_cancelled": False, "updated_at": None}
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": annotation | fields,
        "task": task(id),
        "project": {"id": 1, "created_at": "2026-01-01T00:00:00Z"},
    }


def deleted(*numbers: Any, project: int = 1) -> dict[str, Any]:
    return {
        "action": "ANNOTATIONS_DELETED",
        "annotations": [{"id": number} for number in numbers],
        "project": {"id": project, "created_at": "2026-01-01T00:00:00Z"},
    }


def test_of_two_annotations_the_newest_that_is_left_counts(
    client: TestClient, daemon: Daemon
) -> None:
    tell(client, event(1, choice="cat", updated_at="2026-01-01T00:00:00Z"))
    tell(client, event(2, choice="dog", updated_at="2026-01-01T00:00:00.5Z"))
    tell(client, event(3, was_cancelled=True, updated_at="2026-01-02T00:00:00Z"))
    assert daemon.state == {"0.png": "label:dog"}
    tell(client, deleted(2, project=7))  # the same number of another project
    assert daemon.state == {"0.png": "label:dog"}
    tell(client, deleted(2))
    assert daemon.state == {"0.png": "label:cat"}
    assert tell(client, deleted(1))["skipped"] == 1
    assert daemon.state == {"0.png": "skipped"}
    assert tell(client, deleted(3, 3, 99))["unlabeled"] == 1
    assert daemon.state == {}


def test_an_event_that_is_overtaken_changes_nothing(client: TestClient, daemon: Daemon) -> None:
    tell(client, event(1, choice="dog", updated_at="2026-01-01T00:00:09Z"))
    tell(client, event(1, choice="cat", updated_at="2026-01-01T00:00:01Z"))
    assert daemon.state == {"0.png": "label:dog"}


def test_of_many_annotations_those_of_no_pool_are_ignored(
    client: TestClient, daemon: Daemon
) -> None:
    made = [event(1), event(2, "1.png"), event(3, "nowhere.png"), event(4)]
    made[3]["task"]["data"]["lloss_pool"] = "gone"
    bulk = {**made[0], "action": "ANNOTATIONS_CREATED"}
    bulk["annotation"] = [one["annotation"] for one in made]
    bulk["task"] = [one["task"] for one in made]
    assert tell(client, bulk) == {"labeled": 2, "unlabeled": 0, "skipped": 0, "ignored": 2}
    assert set(daemon.state) == {"0.png", "1.png"}


def test_events_of_nothing_here_and_of_wrong_types_do_no_harm(
    client: TestClient, daemon: Daemon
) -> None:
    for action in ("PROJECT_UPDATED", "TASKS_DELETED", "NEWS", None, 3, ["ANNOTATION_CREATED"]):
        tell(client, {"action": action, "annotation": {}, "task": {}}, 200)
    good = event(1)
    wrong: list[dict[str, Any]] = [
        {"action": "ANNOTATION_CREATED"},
        {**good, "annotation": None}, {**good, "annotation": [], "task": {}},
        {**good, "annotation": [3], "task": [3]}, {**good, "task": {"data": {"image": "x"}}},
        {**good, "annotation": good["annotation"] | {"id": "1"}},
        {**good, "annotation": good["annotation"] | {"id": True}},
        {**good, "annotation": good["annotation"] | {"id": 1 << 63}},
        {"action": "ANNOTATIONS_DELETED", "annotations": 3},
        deleted(None, "x", 1 << 70, 1.5),
    ]  # fmt: skip
    for one in wrong:
        assert tell(client, one)["labeled"] == 0
    assert daemon.state == {}
    half = {"id": "\ud800", "created_at": "\udfff"}
    assert tell(client, {**good, "project": half})["labeled"] == 1
    assert tell(client, {**deleted(1), "project": half})["unlabeled"] == 1
    odd = {**good, "project": 3, "annotation": {"id": 5, "result": {"x": [3]}, "updated_at": "?"}}
    assert tell(client, odd)["labeled"] == 1
    assert daemon.state == {"0.png": "label:"}


def test_what_cannot_be_marked_is_not_noted_either(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RequestError(507, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(daemon.catalog.images, "label", full)
        tell(client, event(1), 507)
    tell(client, event(2, choice="dog"))
    tell(client, deleted(2))
    assert daemon.state == {}  # number 1 would still label it


def test_a_label_is_not_lost_while_the_pool_cannot_be_read(
    client: TestClient, daemon: Daemon, tmp_path: Path
) -> None:
    """One that has no scores has to be asked itself."""
    (tmp_path / "away").mkdir()
    (tmp_path / "away/0.png").write_bytes(b"")
    daemon.catalog.put_pool("away", str(tmp_path / "away"))
    made, ours = event(1), event(2)
    made["task"] = task("0.png", "away")
    bulk = {**made, "action": "ANNOTATIONS_CREATED"}
    bulk["annotation"] = [ours["annotation"], made["annotation"]]
    bulk["task"] = [ours["task"], made["task"]]
    (tmp_path / "away").rename(tmp_path / "gone")
    assert "no such pool" in tell(client, bulk, 422)["error"]
    assert daemon.state == {}, "all or nothing"
    (tmp_path / "gone").rename(tmp_path / "away")
    assert tell(client, bulk)["labeled"] == 2
    assert daemon.selections.labels("away") == {"0.png": "cat"}
    tell(client, deleted(1))
    assert daemon.selections.labels("away") == {}, "it was noted"


def test_what_the_scores_know_needs_no_pool(
    client: TestClient, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.pools, "_open", None)
    assert tell(client, event(1))["labeled"] == 1
    assert tell(client, deleted(1))["unlabeled"] == 1


def test_what_came_from_elsewhere_is_not_taken_back(client: TestClient, daemon: Daemon) -> None:
    daemon.selections.label("wild", {"0.png": "owl"})
    daemon.selections.skip("wild", ["1.png"])
    daemon.selections.skip("wild", ["2.png"])
    before = {"0.png": "label:owl", "1.png": "skipped", "2.png": "skipped"}
    tell(client, event(1, was_cancelled=True))
    assert daemon.state == before, "a skip takes no label"
    tell(client, deleted(1))
    assert daemon.state == before
    tell(client, event(3, choice="cat"))
    daemon.selections.label("wild", {"0.png": "owl"})
    tell(client, deleted(3))
    assert daemon.state == before, "nor one that came later"
    tell(client, event(2, "1.png"))
    daemon.selections.unlabel("wild", ["1.png"])
    daemon.selections.skip("wild", ["1.png"])
    tell(client, deleted(2))
    assert daemon.state == before, "a label that is gone frees no image that was skipped since"


def test_a_damaged_file_is_told_with_the_remedy(client: TestClient, daemon: Daemon) -> None:
    path = daemon.settings.data_dir / "labelstudio.sqlite"
    path.write_bytes(b"no database at all" * 100)
    assert "remove it" in tell(client, event(1), 500)["error"]
    path.unlink()
    path.mkdir()
    assert "cannot be written" in tell(client, event(1), 503)["error"]
    assert daemon.state == {}


@pytest.mark.parametrize(
    ("result", "label"),
    [
        ([], ""),
        ([{"type": "choices", "value": {"choices": ["cat"]}}], "cat"),
        ([{"type": "choices", "value": {"choices": ["cat", "dog"]}}], ""),
        ([{"type": "choices", "value": {"choices": ["cat"]}}] * 2, ""),
        ([{"type": "choices", "value": {"choices": ["cat"], "x": 1, "width": 5}}], ""),
        ([{"type": "rectanglelabels", "value": {"rectanglelabels": ["cat"]}},
          {"type": "choices", "value": {"choices": ["dog"]}}], "dog"),
        ([{"type": "choices", "value": {"choices": [3]}}], ""),
        ([{"type": "choices", "value": []}, 3], ""),
    ],
)  # fmt: skip
def test_a_label_is_the_only_choice_for_the_whole_image(
    client: TestClient, daemon: Daemon, result: Any, label: str
) -> None:
    tell(client, event(1, result=result))
    assert daemon.state == {"0.png": f"label:{label}"}


# Exports


def test_recorded_exports_give_the_same_labels() -> None:
    expected = {"0.png": "dog", "1.png": "dog", "2.png": "", "3.png": "cat"}
    assert labels_of(recorded("export.json")) == expected
    assert labels_of(recorded("export.json"), "wild") == expected
    assert labels_of(recorded("export_min.json"), "wild") == expected


def test_tasks_of_other_pools_are_left_out() -> None:
    for name in ("export.json", "export_min.json"):
        with pytest.raises(LabelError, match="none of the . tasks is one of the pool 'zoo'"):
            labels_of(recorded(name), "zoo")
    mixed = recorded("export.json")
    mixed[0]["data"]["lloss_pool"] = "zoo"
    assert labels_of(mixed, "zoo") == {"0.png": "dog"}
    assert set(labels_of(mixed, "wild")) == {"1.png", "2.png", "3.png"}
    with pytest.raises(LabelError, match="none of the 0 tasks is one that lloss made"):
        labels_of([])


def exported(id: str, *annotations: tuple[str, str | None, bool]) -> dict[str, Any]:
    made = [
        {
            "id": number,
            "result": [{"type": "choices", "value": {"choices": [choice]}}],
            "updated_at": changed,
            "was_cancelled": cancelled,
        }
        for number, (choice, changed, cancelled) in enumerate(annotations)
    ]
    return {"id": 1, "data": {"lloss_pool": "p", "lloss_id": id}, "annotations": made}


def test_the_newest_annotation_of_an_image_counts_over_all_its_tasks() -> None:
    old, new = "2026-01-01T09:00:00Z", "2026-01-01T09:00:00.25Z"
    document = [
        exported("a", ("late", new, False), ("early", old, False)),
        exported("b", ("early", old, False)),
        exported("b", ("late", new, False), ("skip", "2027-01-01T00:00:00Z", True)),
        exported("c", ("skip", new, True)),
        exported("d"),
        exported("e", ("first", None, False), ("second", None, False)),
    ]
    expected = {"a": "late", "b": "late", "e": "second"}
    assert labels_of(document) == labels_of(document[::-1]) == expected
    assert labels_of([exported("d")]) == {}  # a task of ours, but nothing done yet


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "a list of tasks"), ("x", "a list of tasks"), (None, "a list of tasks"),
        ([3], "task 1: is no object: 3"),
        ([{"id": 1}], "task 1: data must be an object, not None"),
        ([exported("a"), {"data": {"lloss_pool": "p", "lloss_id": 7}}],
         "task 2: lloss_id must be a text, not 7"),
        ([{"data": {"lloss_id": "a"}}], "task 1: lloss_pool must be a text"),
        ([{"data": {"lloss_pool": "p", "lloss_id": ""}}], "task 1: lloss_id must be a text"),
        ([{"data": {"lloss_pool": "p", "lloss_id": "a"}}], "task 1: annotations must be a list"),
        ([exported("a") | {"annotations": {}}], "task 1: annotations must be a list"),
        ([exported("a") | {"annotations": [3]}], r"task 1: annotations\[0\] must be an object"),
        ([exported("a") | {"annotations": [{"result": "x"}]}],
         r"task 1: annotations\[0\].result must be a list, not 'x'"),
        ([{"annotation_id": 1, "lloss_pool": "p", "lloss_id": None}], "task 1: lloss_id"),
    ],
)  # fmt: skip
def test_wrong_exports_are_named_by_task_and_key(document: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        labels_of(document, "p" if isinstance(document, list) and len(document) > 1 else None)
    assert "\n" not in str(caught.value)


# Boxes


def box(x: float, y: float, width: float, height: float, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    value |= {"rectanglelabels": ["tail"]} | fields.pop("value", {})
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    return {"type": "rectanglelabels", "value": value, **size, **fields}


def drawn(*result: Any, id: str = "a/b.png") -> dict[str, Any]:
    made = exported(id, ("", None, False))
    made["annotations"][0]["result"] = list(result)
    return made


def test_boxes_become_coco_that_lloss_reads_with_the_ids_of_the_pool(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(coco_of(recorded("export.json"), "wild")), encoding="utf-8")
    labels = read_objects(path, Problems())
    assert set(labels) == {"0.png", "1.png", "2.png", "3.png"}
    for id, label in labels.items():  # of 8 × 8 pixels, 10 % from the corner, 50 % wide
        expected = [[0.8, 0.8, 4.8, 4.8]] if id in ("1.png", "2.png") else np.empty((0, 4))
        np.testing.assert_allclose(label.boxes, expected, rtol=1e-6)


def test_a_turned_box_becomes_the_upright_one_around_it() -> None:
    turned = box(50, 10, 10, 40, value={"rotation": 90})
    (found,) = coco_of([drawn(turned)])["annotations"]
    assert found["bbox"] == pytest.approx([100 - 40, 10, 40, 20])
    slanted = box(50, 50, 10, 20, value={"rotation": 45})  # 20 × 20 pixels
    (found,) = coco_of([drawn(slanted)])["annotations"]
    half = 20 / 2**0.5
    assert found["bbox"] == pytest.approx([100 - half, 50, 2 * half, 2 * half])


def test_of_several_annotations_the_newest_one_gives_the_boxes() -> None:
    task = drawn(box(0, 0, 10, 10), {"type": "choices", "value": {"choices": ["cat"]}})
    task["annotations"].append({**task["annotations"][0], "id": 9, "result": []})
    made = coco_of([task, drawn(box(0, 0, 5, 5, value={"rectanglelabels": ["ear"]}), id="c")])
    assert [one["file_name"] for one in made["images"]] == ["a/b.png", "c"]
    assert made["categories"] == [{"id": 1, "name": "ear"}]
    assert [one["image_id"] for one in made["annotations"]] == [2]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "polygonlabels", "value": {}}, "polygonlabels.*only rectangles"),
        ({"type": "rectanglelabels"}, "value must be an object"),
        (3, "value must be an object"),
        (box("1", 0, 5, 5), "x must be a number, not '1'"),  # type: ignore[arg-type]
        (box(float("nan"), 0, 5, 5), "x must be a number"),
        (box(0, 0, 5, True), "height must be a number"),
        (box(0, 0, 5, 5, original_width=0), "must be positive"),
        (box(0, 0, 5, 5, original_height=None), "original_height must be a number"),
        (box(0, 0, 5, 5, image_rotation=90), "image_rotation must be 0, not 90"),
        (box(0, 0, 5, 5, value={"rectanglelabels": []}), "must be one class"),
        (box(0, 0, 5, 5, value={"rotation": None}), "rotation must be a number"),
    ],
)
def test_what_is_no_box_is_an_error(item: Any, message: str) -> None:
    with pytest.raises(LabelError, match=rf"task 1: annotations\[0\].result\[0\].*{message}"):
        coco_of([drawn(item)])
    with pytest.raises(LabelError, match="JSON_MIN"):
        coco_of(recorded("export_min.json"))


def test_the_daemon_makes_coco_of_an_export(client: TestClient) -> None:
    document = recorded("export.json")
    reply = client.post("/labelstudio/coco?pool=wild", json=document)
    assert reply.json() == coco_of(document, "wild")
    for wrong, pool in ((document, "zoo"), ({}, "wild"), ([3], "wild")):
        reply = client.post(f"/labelstudio/coco?pool={pool}", json=wrong)
        assert reply.status_code == 422 and "\n" not in reply.json()["error"]


# Tasks


def handed_out(*ids: str, pool: str = "wild") -> HandedOut:
    images = [Ranked(id, 5.0 - rank, rank + 1) for rank, id in enumerate(ids)]
    return HandedOut("sel1", pool, "ab" * 32, images, time.time() + 60, 5)


def request_to(base: str = "http://127.0.0.1:8000/") -> Any:
    return SimpleNamespace(base_url=base)


def test_tasks_carry_the_image_its_place_and_a_prediction(daemon: Daemon) -> None:
    tasks = tasks_of(daemon, handed_out("4.png", "2.png"), request_to())  # type: ignore[arg-type]
    assert [one["data"]["lloss_id"] for one in tasks] == ["4.png", "2.png"]
    first = tasks[0]
    assert first["data"]["lloss_loss"] == 5 and first["data"]["lloss_pool"] == "wild"
    assert first["data"]["lloss_rank"] == 1 and first["data"]["lloss_selection"] == "sel1"
    (made,) = first["predictions"]
    assert made["model_version"] == "ab" * 6 and made["result"] == []
    assert made["score"] == pytest.approx(1 - 0.9)
    assert made["score"] < tasks[1]["predictions"][0]["score"]
    address = urlsplit(first["data"]["image"])
    assert address.netloc == "127.0.0.1:8000" and address.path == "/v1/pools/wild/images"
    assert parse_qs(address.query)["id"] == ["4.png"]
    json.dumps(tasks)


def test_behind_a_proxy_links_begin_as_the_proxy_does(daemon: Daemon) -> None:
    object.__setattr__(daemon.settings, "public_url", "https://scores.example")
    (one,) = tasks_of(daemon, handed_out("a.png"), request_to())  # type: ignore[arg-type]
    assert one["data"]["image"].startswith("https://scores.example/v1/pools/wild/images?")


def test_an_address_of_ones_own_is_filled_in_safely(daemon: Daemon) -> None:
    object.__setattr__(daemon.settings, "image_url", "https://files/{pool}/{id}?v={x}#{id}")
    odd = "a b/{pool}/../é&?#%.png"
    (one,) = tasks_of(daemon, handed_out(odd, pool="raw"), request_to())  # type: ignore[arg-type]
    quoted = "a%20b%2F%7Bpool%7D%2F..%2F%C3%A9%26%3F%23%25.png"
    assert one["data"]["image"] == f"https://files/raw/{quoted}?v={{x}}#{quoted}"
    assert one["data"]["lloss_id"] == odd and "predictions" not in one
