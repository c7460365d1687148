"""Bodies of the inference routes: checked by pydantic, described in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

PIXELS, ENCODED, ERROR = "images", "encoded", "error"
"""The two inputs, of which a request has one, and the output beside the model's own."""


class Parameters(BaseModel):
    """Parameters of the protocol, and of Triton's extensions; unknown ones are ignored."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_extensions(cls, given: Any) -> Any:
        if isinstance(given, dict):
            if any(name.startswith("shared_memory") for name in given):
                raise ValueError("shared memory is not supported; send the tensors themselves")
            if given.get("classification"):
                raise ValueError("classification is not supported; rank the values yourself")
        return given


class RequestParameters(Parameters):
    """Parameters of a request."""

    timeout: int = Field(default=0, ge=0, description="Microseconds; 0 for the server's own limit.")
    binary_data_output: bool = False


class InputParameters(Parameters):
    """Parameters of an input."""

    binary_data_size: int | None = None


class OutputParameters(Parameters):
    """Parameters of an output."""

    binary_data: bool | None = Field(default=None, description="By default binary_data_output.")


Side = Annotated[int, Field(ge=1)]


class PixelInput(BaseModel):
    """Pixels of images of one size."""

    model_config = ConfigDict(strict=True)

    name: Literal["images"]
    datatype: Literal["UINT8"]
    shape: tuple[Side, Side, Side, Literal[3]] = Field(description="[N, H, W, 3]")
    data: list[Any] | None = Field(None, description="Values from 0 to 255; may be nested.")
    parameters: InputParameters = InputParameters()


class EncodedInput(BaseModel):
    """Image files."""

    model_config = ConfigDict(strict=True, val_json_bytes="base64")

    name: Literal["encoded"]
    datatype: Literal["BYTES"]
    shape: tuple[Side] = Field(description="[N]")
    data: list[Annotated[bytes, WithJsonSchema({"type": "string", "format": "byte"})]] | None = (
        Field(None, fail_fast=True)
    )
    parameters: InputParameters = InputParameters()


class RequestedOutput(BaseModel):
    """An output to reply with."""

    model_config = ConfigDict(strict=True)

    name: str
    parameters: OutputParameters = OutputParameters()


class InferBody(BaseModel):
    """The JSON of a request for inference."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "example": {
                "inputs": [
                    {"name": PIXELS, "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [9, 9, 9]}
                ],
                "outputs": [{"name": "loss"}],
            }
        },
    )

    id: str = ""
    parameters: RequestParameters = RequestParameters()
    inputs: list[Annotated[PixelInput | EncodedInput, Field(discriminator="name")]] = Field(
        min_length=1, max_length=1
    )
    outputs: list[RequestedOutput] | None = Field(
        None, fail_fast=True, description="By default all."
    )


class InferReply(BaseModel):
    """The JSON of a reply to a request for inference."""

    model_name: str
    model_version: str
    id: str = ""
    outputs: list[dict[str, Any]]


class ImageReply(BaseModel):
    """An image's scores, or why it has none; further outputs have their own names."""

    row: int
    name: str
    loss: float | None = Field(None, description="Predicted loss: a score to rank by, in no unit.")
    prediction: int = 0
    class_: str = Field("", alias="class")
    error: str = ""


class ScoreReply(BaseModel):
    """The scores of image files."""

    model: str = Field(description="sha256 of the model that scored.")
    images: list[ImageReply]


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a body that FastAPI does not parse, without references."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolve(definitions[node["$ref"].rpartition("/")[2]])
        return {key: resolve(value) for key, value in node.items() if key != "discriminator"}

    resolved: dict[str, Any] = resolve(schema)
    return resolved
