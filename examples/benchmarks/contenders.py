"""Optimizers that race: keras_muon's Muon, Keras' own, and the frameworks'.

All get the same matrices of two axes, gradients, rate, decay and momentum, and move a
Muon update by the same 0.2 sqrt(max(in, out)), so that what remains is speed. Every
matrix is hidden to all of them: keras_muon gets routes, Keras' own sees no path with
"embedding", and the frameworks' take all that has two axes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from carriers import JaxStep, Step, VariableStep, carrier
from step_flops import JORDAN, Shape, dtype_of, flops_of, newton_schulz_flops

RATE, DECAY, MOMENTUM = 0.02, 0.1, 0.95
RMS = 0.2
BETAS, EPSILON = (0.9, 0.95), 1e-7

OURS = "keras_muon.Muon"
OURS_PLAIN = "keras_muon.Muon, jordan, float32"
OURS_APART = "keras_muon.Muon, batched=False"
BUILT_IN = "keras.optimizers.Muon"
ADAMW = "keras.optimizers.AdamW"
KERAS = (OURS, OURS_PLAIN, BUILT_IN, ADAMW)
# What has Keras' interface; the batches apart are raced in `scaling.py`.
OPTIMIZERS_OF_KERAS = (*KERAS, OURS_APART)
# What the frameworks themselves have.
FRAMEWORKS = {
    "tensorflow": (),
    "jax": ("optax.contrib.muon", "optax.adamw"),
    "torch": ("torch.optim.Muon", "torch.optim.AdamW"),
}


@dataclasses.dataclass
class Contender:
    """An optimizer, ready to step.

    Attributes:
        name: What it is called in tables.
        step: A whole step.
        flops: Operations of Newton-Schulz in a step; 0 for AdamW.
        dtype: Of its matrix products.
    """

    name: str
    step: Step
    flops: int
    dtype: str


def names_on(backend: str) -> tuple[str, ...]:
    """Return the contenders of a backend, keras_muon's first."""
    return (*KERAS, *FRAMEWORKS[backend])


def contender(
    name: str, backend: str, gradients: Sequence[np.ndarray], jit: bool = True
) -> Contender:
    """Return a contender whose weights start at zero.

    Args:
        name: One of `names_on(backend)`, or `OURS_APART`.
        backend: The one that Keras runs on.
        gradients: One per matrix, the same in every step.
        jit: Whether TensorFlow compiles with XLA.
    """
    if name in OPTIMIZERS_OF_KERAS:
        return _of_keras(name, backend, gradients, jit)
    step = (_by_optax if backend == "jax" else _by_torch)(name, gradients)
    muon = "muon" in name.lower()
    flops = newton_schulz_flops([g.shape for g in gradients], JORDAN) if muon else 0
    dtype = "bfloat16" if name == "torch.optim.Muon" else "float32"
    return Contender(name, step, flops, dtype)


def is_muon(name: str) -> bool:
    """Whether a contender orthogonalizes."""
    return "muon" in name.lower()


def direction(weight: np.ndarray) -> np.ndarray:
    """Return what stands for the polar factor in a weight that was zero a step ago."""
    return weight / (-RATE * RMS * np.sqrt(max(weight.shape)))


def keras_optimizer(name: str) -> Any:
    """Return one of the optimizers with Keras' interface, not built."""
    import keras

    from keras_muon import Muon

    same = {"learning_rate": RATE, "weight_decay": DECAY}
    muon = same | {"momentum": MOMENTUM}
    every = {"routes": {".*": "muon"}}
    plain = {"schedule": "jordan", "compute_dtype": "float32"}
    adamw = {"beta_1": BETAS[0], "beta_2": BETAS[1], "epsilon": EPSILON}
    optimizers: dict[str, Callable[[], Any]] = {
        OURS: lambda: Muon(**muon, **every),
        OURS_PLAIN: lambda: Muon(**muon, **every, **plain),
        OURS_APART: lambda: Muon(**muon, **every, batched=False),
        BUILT_IN: lambda: keras.optimizers.Muon(**muon, rms_rate=RMS),
        ADAMW: lambda: keras.optimizers.AdamW(**same, **adamw),
    }
    return optimizers[name]()


def built_optimizer(
    name: str, backend: str, shapes: Sequence[Shape], jit: bool
) -> tuple[Any, list[Any]]:
    """Return an optimizer with Keras' interface, built for matrices of zeros, and them.

    Args:
        name: One of `OPTIMIZERS_OF_KERAS`.
        backend: The one that Keras runs on.
        shapes: (in, out) of each matrix.
        jit: Whether TensorFlow compiles with XLA.
    """
    import keras

    # A model, since keras_muon asks it whether XLA compiles the steps.
    model = keras.Sequential(name="matrices")
    variables = [
        model.add_weight(shape=shape, initializer="zeros", name=f"kernel_{i}")
        for i, shape in enumerate(shapes)
    ]
    optimizer = keras_optimizer(name)
    model.compile(optimizer, jit_compile=jit if backend == "tensorflow" else "auto")
    optimizer.build(variables)
    return optimizer, variables


def _of_keras(
    name: str, backend: str, gradients: Sequence[np.ndarray], jit: bool
) -> Contender:
    import keras

    shapes: list[Shape] = [g.shape for g in gradients]
    optimizer, variables = built_optimizer(name, backend, shapes, jit)
    tensors = [keras.ops.convert_to_tensor(g) for g in gradients]
    step = carrier(backend, jit).step(optimizer, variables, tensors)
    if name.startswith(OURS):
        flops, dtype = flops_of(optimizer), dtype_of(optimizer)
    else:
        flops = newton_schulz_flops(shapes, JORDAN) if is_muon(name) else 0
        dtype = "float32"
    return Contender(name, step, flops, dtype)


def _by_optax(name: str, gradients: Sequence[np.ndarray]) -> JaxStep:
    import jax
    import optax

    if name == "optax.adamw":
        b1, b2 = BETAS
        rule = optax.adamw(RATE, b1, b2, EPSILON, weight_decay=DECAY)
    else:
        rule = optax.contrib.muon(
            RATE, beta=MOMENTUM, weight_decay=DECAY, consistent_rms=RMS
        )

    def update(weights, state, gradients):
        changes, state = rule.update(gradients, state, weights)
        return optax.apply_updates(weights, changes), state

    given = [jax.numpy.asarray(g) for g in gradients]
    weights = [jax.numpy.zeros_like(g) for g in given]
    return JaxStep(update, weights, rule.init(weights), given)


def _by_torch(name: str, gradients: Sequence[np.ndarray]) -> VariableStep:
    import keras
    import torch

    tensors = [keras.ops.convert_to_tensor(g) for g in gradients]
    weights = [torch.nn.Parameter(torch.zeros_like(t)) for t in tensors]
    for weight, tensor in zip(weights, tensors, strict=True):
        weight.grad = tensor
    same = {"lr": RATE, "weight_decay": DECAY}
    if name == "torch.optim.AdamW":
        rule = torch.optim.AdamW(weights, betas=BETAS, eps=EPSILON, **same)
    else:
        rule = torch.optim.Muon(
            weights, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw", **same
        )
    wait = carrier("torch", jit=False).wait

    def state() -> list:
        tensors = [v for one in rule.state.values() for v in one.values()]
        return [v for v in tensors if isinstance(v, torch.Tensor)]

    return VariableStep(lambda: wait(rule.step()), weights, state)
