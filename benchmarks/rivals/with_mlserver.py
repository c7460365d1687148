"""A plain MLServer runtime, started by model-settings.json: see benchmarks/serving_load.py.

A request is that of the Open Inference Protocol in JSON (MLServer's REST takes no binary tensors),
an image a base64 string of its pixels: far less to parse than a list of numbers.
"""

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Losses(MLModel):
    async def load(self) -> bool:
        given = self.settings.parameters.extra
        options = ort.SessionOptions()
        options.intra_op_num_threads = given["threads"]
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(
            given["model"], options, providers=["CPUExecutionProvider"]
        )
        self.image = tuple(self.session.get_inputs()[0].shape[1:])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pixels = b"".join(Base64Codec.decode_input(payload.inputs[0]))
        images = np.frombuffer(pixels, np.uint8).reshape(-1, *self.image)
        losses = self.session.run(["loss"], {"images": images})[0]
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("loss", losses)],
        )
