"""The step graphs against closed sums over all gradients, and in place."""

import numpy as np
import onnxruntime
import pytest
from onnx_runtimes import RUNTIMES, by_onnxruntime
from trajectory_oracle import adamw_run, muon_run

from keras_muon.export import adamw_step, muon_step, serialized
from keras_muon.export.step_ports import ADAMW_STATE, MUON_STATE

STEPS = 10
RATES = np.linspace(0.02, 0.005, STEPS)
DECAY = 0.3

# Largest errors seen after 10 steps: 6e-7 and 4e-16. One wrong factor is off by 1e-3.
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}
ALL_RUNTIMES = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
ALL_DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)

MUON_SETTINGS = {
    "default": {},
    "plain": {"nesterov": False, "momentum": 0.95},
    "original": {"scaling": "original", "schedule": "jordan"},
    "mup": {"scaling": "mup"},
    "naive": {"scaling": "naive"},
    "small": {"rms": 0.1},
}
MUON_DEFAULTS = {"momentum": 0.9, "nesterov": True, "scaling": "moonlight"}


def run_by(runtime, model, weight, gradients, state_count):
    """The weight after all gradients; AdamW's graph gets the step number too."""
    dtype = weight.dtype
    state = [np.zeros_like(weight) for _ in range(state_count)]
    for number, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
        scalars = [np.asarray(rate, dtype), np.asarray(DECAY, dtype)]
        scalars += [np.asarray(number, np.int64)] if state_count == 2 else []
        weight, *state = runtime(model, weight, gradient, *state, *scalars)
    return weight


def muon_case(rng, shape, dtype, settings):
    """(weight, gradients, the oracle's answer) of a run with given settings."""
    weight = rng.standard_normal(shape).astype(dtype)
    gradients = rng.standard_normal((STEPS, *shape)).astype(dtype)
    rank = len(shape)
    axes = (tuple(range(rank - 2)), (rank - 2,), (rank - 1,))
    wanted = MUON_DEFAULTS | settings
    answer = muon_run(weight, gradients, axes, rates=RATES, decay=DECAY, **wanted)
    return weight, gradients, answer


@ALL_RUNTIMES
@ALL_DTYPES
@pytest.mark.parametrize("settings", MUON_SETTINGS.values(), ids=MUON_SETTINGS)
@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (3, 12, 8)], ids=str)
def test_muon_steps_equal_the_oracle(rng, runtime, dtype, settings, shape):
    weight, gradients, answer = muon_case(rng, shape, dtype, settings)
    batch = shape[0] if len(shape) == 3 else None
    model = muon_step(shape[-2:], batch=batch, dtype=dtype, **settings)
    result = run_by(runtime, model, weight, gradients, 1)
    np.testing.assert_allclose(result, answer, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("opset", [18, 26])
def test_a_stack_of_any_number(rng, opset):
    weight, gradients, answer = muon_case(rng, (4, 8, 12), "float32", {})
    model = muon_step((8, 12), batch="k", opset=opset)
    result = run_by(by_onnxruntime, model, weight, gradients, 1)
    np.testing.assert_allclose(result, answer, rtol=0, atol=TOLERANCE["float32"])


ADAMW_SETTINGS = {
    "default": {},
    "slow": {"beta_1": 0.95, "beta_2": 0.999},
    "coarse": {"epsilon": 0.1},
}
ADAMW_DEFAULTS = {"beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-7}


def adamw_case(rng, shape, dtype, settings):
    weight = rng.standard_normal(shape).astype(dtype)
    gradients = rng.standard_normal((STEPS, *shape)).astype(dtype)
    wanted = ADAMW_DEFAULTS | settings
    answer = adamw_run(weight, gradients, rates=RATES, decay=DECAY, **wanted)
    return weight, gradients, answer


@ALL_RUNTIMES
@ALL_DTYPES
@pytest.mark.parametrize("settings", ADAMW_SETTINGS.values(), ids=ADAMW_SETTINGS)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 2)], ids=str)
def test_adamw_steps_equal_the_oracle(rng, runtime, dtype, settings, shape):
    weight, gradients, answer = adamw_case(rng, shape, dtype, settings)
    model = adamw_step(shape, dtype=dtype, **settings)
    result = run_by(runtime, model, weight, gradients, 2)
    np.testing.assert_allclose(result, answer, rtol=0, atol=TOLERANCE[dtype])


def test_zero_gradients_move_nothing_but_by_decay():
    weight, zero = np.ones((8, 4), "float32"), np.zeros((8, 4), "float32")
    rate, decay = np.float32(0.5).reshape(()), np.float32(0.25).reshape(())
    moved, momentum = by_onnxruntime(muon_step((8, 4)), weight, zero, zero, rate, decay)
    np.testing.assert_array_equal(moved, weight * 0.875)
    assert not momentum.any()
    step = np.asarray(1, np.int64)
    moved, *state = by_onnxruntime(
        adamw_step((8, 4)), weight, zero, zero, zero, rate, decay, step
    )
    np.testing.assert_array_equal(moved, weight * 0.875)
    assert not np.any(state)


def run_in_place(model, state, weight, gradients):
    """As `run_by`, but every new value is written over the old one."""
    session = onnxruntime.InferenceSession(
        serialized(model), providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    zeros = dict.fromkeys([*state.values(), "gradient"], np.zeros_like(weight))
    arrays = zeros | {"parameter": weight, "weight_decay": np.asarray(DECAY, "float32")}
    arrays |= {"learning_rate": np.zeros((), "float32")}
    if "velocity" in arrays:
        arrays["step"] = np.zeros((), np.int64)
    hold = onnxruntime.OrtValue.ortvalue_from_numpy
    # Copies, because on a CPU these values share the memory of their arrays.
    held = {name: hold(array.copy()) for name, array in arrays.items()}
    for name, value in held.items():
        binding.bind_ortvalue_input(name, value)
    for output, name in state.items():
        binding.bind_ortvalue_output(output, held[name])
    for number, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
        held["gradient"].update_inplace(np.asarray(gradient))
        held["learning_rate"].update_inplace(np.asarray(rate, "float32"))
        if "step" in held:
            held["step"].update_inplace(np.asarray(number, np.int64))
        session.run_with_iobinding(binding)
    # A copy, because the view does not keep its memory alive.
    return held["parameter"].numpy().copy()


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (3, 24, 40), (3, 40, 24)])
def test_muon_state_may_be_bound_in_place(rng, shape):
    """10 steps in one set of buffers are the same 10 steps."""
    weight, gradients, answer = muon_case(rng, shape, "float32", {})
    model = muon_step(shape[-2:], batch=shape[0] if len(shape) == 3 else None)
    result = run_in_place(model, MUON_STATE, weight, gradients)
    np.testing.assert_allclose(result, answer, rtol=0, atol=TOLERANCE["float32"])


@pytest.mark.parametrize("shape", [(), (64,), (24, 40)], ids=str)
def test_adamw_state_may_be_bound_in_place(rng, shape):
    weight, gradients, answer = adamw_case(rng, shape, "float32", {})
    result = run_in_place(adamw_step(shape), ADAMW_STATE, weight, gradients)
    np.testing.assert_allclose(result, answer, rtol=0, atol=TOLERANCE["float32"])
