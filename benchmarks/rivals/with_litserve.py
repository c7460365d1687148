"""What a user would write with LitServe: python with_litserve.py MODEL PORT WORKERS THREADS BATCH

A request is JSON with base64 pixels, uint8 [N, H, W, 3] of the model's size; requests of one image
are batched by LitServe, of more are run as they come (BATCH 1).
"""

import base64
import os
import sys

import litserve as ls
import numpy as np
import onnxruntime as ort

MODEL, PORT, WORKERS, THREADS, BATCH = sys.argv[1], *map(int, sys.argv[2:6])


class Losses(ls.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        # Threads that spin take the core from the server and from the other worker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        shape = self.session.get_inputs()[0].shape
        self.image = tuple(shape[1:])

    def decode_request(self, request):
        pixels = np.frombuffer(base64.b64decode(request["images"]), np.uint8)
        return pixels.reshape(-1, *self.image)

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, images):
        return self.session.run(["loss"], {"images": images})[0]

    def unbatch(self, output):
        return [output[row : row + 1] for row in range(len(output))]

    def encode_response(self, output):
        return {"loss": output.tolist()}


if __name__ == "__main__":
    api = Losses(max_batch_size=BATCH, batch_timeout=0.002)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    os.environ.setdefault("LITSERVE_LOG_LEVEL", "WARNING")
    server.run(port=PORT, host="127.0.0.1", generate_client_file=False, log_level="warning")
