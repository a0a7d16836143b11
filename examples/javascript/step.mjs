// One Muon step, and a training loop, in JavaScript: onnxruntime-web on WebAssembly.
//
//     python examples/javascript/export_step.py
//     cd examples/javascript && npm install && node step.mjs
//
// First the step must return what Python computed in float64. Then the same graph finds
// W in Y = X W: JavaScript makes the gradient, the graph the step.

import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

const TOLERANCE = 1e-5;
const STEPS = 300;
const here = (name) => new URL(name, import.meta.url);

const values = JSON.parse(await readFile(here("step.json"), "utf8"));
const [rows, columns] = values.shape;
const session = await ort.InferenceSession.create(await readFile(here("step.onnx")));

const matrix = (data) =>
  new ort.Tensor("float32", Float32Array.from(data), values.shape);
const scalar = (x) => new ort.Tensor("float32", Float32Array.of(x), []);

async function step(parameter, gradient, momentum, learningRate, weightDecay) {
  return session.run({
    parameter,
    gradient,
    momentum,
    learning_rate: scalar(learningRate),
    weight_decay: scalar(weightDecay),
  });
}

const { parameter, gradient, momentum } = values.inputs;
const results = await step(
  matrix(parameter),
  matrix(gradient),
  matrix(momentum),
  values.learning_rate,
  values.weight_decay,
);
let largest = 0;
for (const [name, expected] of Object.entries(values.outputs))
  expected.forEach((value, i) => {
    largest = Math.max(largest, Math.abs(value - results[name].data[i]));
  });
console.log(`largest difference from Python: ${largest.toExponential(1)}`);

// With X the identity the loss is |W - Y|^2 / 2 and its gradient W - Y.
const target = matrix(values.inputs.gradient).data;
let weights = matrix(new Float32Array(rows * columns));
let state = matrix(new Float32Array(rows * columns));
const rms = () =>
  Math.sqrt(
    target.reduce((sum, y, i) => sum + (weights.data[i] - y) ** 2, 0) / target.length,
  );
const first = rms();
for (let count = 0; count < STEPS; count++) {
  const difference = matrix(weights.data.map((w, i) => w - target[i]));
  const rate = 0.1 * (1 - count / STEPS);
  const result = await step(weights, difference, state, rate, 0);
  weights = result.new_parameter;
  state = result.new_momentum;
}
console.log(
  `distance from the target: ${first.toFixed(3)} -> ${rms().toFixed(5)} ` +
    `in ${STEPS} steps`,
);
if (!(largest < TOLERANCE) || !(rms() < 0.05 * first)) process.exitCode = 1;
