"""A classifier that trains without Keras: gradients and steps on ONNX Runtime.

`export_onnx.py` uses it. Gradients come from a graph written by hand; any tool that
differentiates could have made it. Steps come from an exported optimizer.
"""

from collections.abc import Iterable

import numpy as np
import onnx

from keras_muon.export import StepRunner, run

HIDDEN = 128

# Two hidden layers, softmax, mean cross-entropy, and the derivative by every parameter.
GRADIENTS = f"""<ir_version: 8, opset_import: ["" : 18]>
classifier (
  float[64,{HIDDEN}] w1, float[{HIDDEN}] b1,
  float[{HIDDEN},{HIDDEN}] w2, float[{HIDDEN}] b2,
  float[{HIDDEN},10] w3, float[10] b3,
  float[n,64] images, float[n,10] targets
) => (
  float[64,{HIDDEN}] dw1, float[{HIDDEN}] db1,
  float[{HIDDEN},{HIDDEN}] dw2, float[{HIDDEN}] db2,
  float[{HIDDEN},10] dw3, float[10] db3,
  float[n,10] logits
) <float one = {{1.0}}, int64[1] batch_axis = {{0}}> {{
  z1 = Gemm (images, w1, b1)
  h1 = Tanh (z1)
  z2 = Gemm (h1, w2, b2)
  h2 = Tanh (z2)
  logits = Gemm (h2, w3, b3)
  p = Softmax <axis = -1> (logits)
  difference = Sub (p, targets)
  shape = Shape <start = 0, end = 1> (images)
  count = Cast <to = 1> (shape)
  e3 = Div (difference, count)
  dw3 = Gemm <transA = 1> (h2, e3)
  db3 = ReduceSum <keepdims = 0> (e3, batch_axis)
  back2 = Gemm <transB = 1> (e3, w3)
  square2 = Mul (h2, h2)
  slope2 = Sub (one, square2)
  e2 = Mul (back2, slope2)
  dw2 = Gemm <transA = 1> (h1, e2)
  db2 = ReduceSum <keepdims = 0> (e2, batch_axis)
  back1 = Gemm <transB = 1> (e2, w2)
  square1 = Mul (h1, h1)
  slope1 = Sub (one, square1)
  e1 = Mul (back1, slope1)
  dw1 = Gemm <transA = 1> (images, e1)
  db1 = ReduceSum <keepdims = 0> (e1, batch_axis)
}}"""


class OnnxClassifier:
    """Holds an exported optimizer and its parameters.

    Args:
        runner: The exported optimizer of a model with the layers of the graph.
        names: Names of the parameters, in the order of the graph's inputs.
    """

    def __init__(self, runner: StepRunner, names: Iterable[str]):
        self.runner = runner
        self.names = list(names)
        self.parameters = runner.parameters
        self._graph = onnx.parser.parse_model(GRADIENTS)
        onnx.checker.check_model(self._graph, full_check=True)

    def train(
        self, images: np.ndarray, labels: np.ndarray, batch: int, rate: float
    ) -> None:
        """Go through the data once, in its order.

        Args:
            images: Vectors of 64 points.
            labels: Digits.
            batch: Images per step.
            rate: The learning rate.
        """
        targets = np.eye(10, dtype="float32")[labels]
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            *gradients, _ = self._run(images[part], targets[part])
            given = dict(zip(self.names, gradients, strict=True))
            self.parameters = self.runner.step(given, learning_rate=rate)

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of images that are recognized."""
        *_, logits = self._run(images, np.zeros((len(images), 10), "float32"))
        return float((logits.argmax(-1) == labels).mean())

    def _run(self, images: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, ...]:
        values = (self.parameters[name] for name in self.names)
        return run(self._graph, *values, images, targets)
