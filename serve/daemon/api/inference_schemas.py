"""What OpenAPI says of the routes whose bodies are not FastAPI's to parse."""

from __future__ import annotations

from typing import Any

MEANINGS = {
    400: "The request is malformed.",
    404: "There is no such model, version or output.",
    413: "The request has more images or bytes than are taken at once.",
    415: "The body is of a type that is not taken.",
    422: "No image of the request could be used.",
    429: "The queue is full; try again after Retry-After seconds.",
    500: "The engine failed; the log says how.",
    503: "The server is loading, exchanging its model, or ending.",
    504: "The answer was not found in time.",
}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Error replies for the ``responses`` of a route; the application adds their schema."""
    return {code: {"description": MEANINGS[code]} for code in codes}


def path_parameters(path: str, **values: str) -> dict[str, Any]:
    """The parameters of a path, each of which has one value that is taken."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "enum": [value]},
            }
            for name, value in values.items()
            if f"{{{name}}}" in path
        ]
    }


def _input(name: str, datatype: str, axes: int, value: dict[str, Any]) -> dict[str, Any]:
    shape = {"type": "array", "items": {"type": "integer", "minimum": 1}}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string", "enum": [name]},
            "datatype": {"type": "string", "enum": [datatype]},
            "shape": {**shape, "minItems": axes, "maxItems": axes},
            "data": {"type": "array", "items": value},
            "parameters": {"type": "object"},
        },
    }


_INPUT = {
    "oneOf": [
        _input("images", "UINT8", 4, {}),
        _input("encoded", "BYTES", 1, {"type": "string", "format": "byte"}),
    ]
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds."},
                "binary_data_output": {"type": "boolean"},
            },
        },
        "inputs": {"type": "array", "items": _INPUT, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": ["array", "null"],
            "description": "All where none is named.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "parameters": {
                        "type": "object",
                        "properties": {"binary_data": {"type": "boolean"}},
                    },
                },
            },
        },
    },
    "example": {
        "inputs": [
            {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [9, 9, 9]}
        ],
        "outputs": [{"name": "loss"}],
    },
}

INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "JSON, followed by binary tensors where Inference-Header-Content-Length "
        "tells the length of the JSON.",
        "content": {"application/json": {"schema": _REQUEST}},
    }
}
INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The outputs, as JSON or as binary tensors after it.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model_name", "model_version", "outputs"],
                    "properties": {
                        "model_name": {"type": "string"},
                        "model_version": {"type": "string"},
                        "id": {"type": "string"},
                        "outputs": {"type": "array", "items": {"type": "object"}},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    **refusals(400, 404, 413, 422, 429, 500, 503, 504),
}

_FILE = {"type": "string", "format": "binary"}
_SCORED = {
    "type": "object",
    "required": ["model", "images"],
    "properties": {
        "model": {"type": "string", "description": "sha256 of the model that scored."},
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["row", "name"],
                "properties": {
                    "row": {"type": "integer"},
                    "name": {"type": "string"},
                    "loss": {
                        "type": ["number", "null"],
                        "description": "Predicted loss: a score to rank by, in no unit.",
                    },
                    "prediction": {"type": "integer"},
                    "class": {"type": "string"},
                    "error": {"type": "string", "description": "Why it could not be scored."},
                },
            },
        },
    },
    "example": {
        "model": "5f0e…",
        "images": [
            {"row": 0, "name": "a.jpg", "loss": 1.25, "prediction": 3, "class": "cat"},
            {"row": 1, "name": "b.txt", "error": "not an image of a known format"},
        ],
    },
}

SCORE: dict[str, Any] = {
    "parameters": [
        {
            "name": "timeout",
            "in": "query",
            "description": "Seconds within which the answer must be there.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        },
        {
            "name": "outputs",
            "in": "query",
            "description": "Names of outputs to add, with commas, such as `embedding`.",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "array", "items": _FILE, "minItems": 1}},
                }
            },
            "image/*": {"schema": _FILE},
        },
    },
}
SCORED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "At least one image could be scored.",
        "content": {"application/json": {"schema": _SCORED}},
    },
    **refusals(400, 413, 415, 422, 429, 500, 503, 504),
}
