"""A run's network behind MLServer, for comparison; read by MLServer's own process."""

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from denature.train import load_run


class Network(MLModel):  # type: ignore[misc]  # it is not installed where types are checked
    """The same network, asked in batches as they come."""

    async def load(self) -> bool:
        assert self.settings.parameters is not None
        self._network = load_run(str(self.settings.parameters.uri)).network.eval()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0]))
        with torch.inference_mode():
            probabilities = self._network(images.float() / 255).softmax(-1).numpy()
        output = NumpyCodec.encode_output("probabilities", probabilities)
        return InferenceResponse(model_name=self.name, outputs=[output])
