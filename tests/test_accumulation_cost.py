"""On JAX, Newton-Schulz runs once per cycle of accumulated gradients.

Keras computes the whole step at every call there and selects the old or the new values
afterwards. On TensorFlow and torch it branches before the step by itself.
"""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"kernel": (6, 4), "gain": (5,)}
ROUTES = {"kernel": "muon", "gain": "adamw"}
CYCLE = 3


def built(loss_scaled=False, **arguments):
    """Return an optimizer and the variables that it is built for."""
    variables = [
        keras.Variable(np.ones(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]
    optimizer = Muon(0.1, routes=ROUTES, **arguments)
    if loss_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)
    optimizer.build(variables)
    return optimizer, variables


def values_of(variables):
    return [variable.value for variable in variables]


def products(jaxpr, conditional=False):
    """Yield for each matrix product of a program whether a condition guards it."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            yield conditional
        for parameter in equation.params.values():
            several = isinstance(parameter, (tuple, list))
            for inner in parameter if several else [parameter]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from products(inner, conditional or name == "cond")


if keras.backend.backend() == "jax":
    import jax

    def program(optimizer, variables):
        """Return the jaxpr of one step."""
        gradients = values_of(variables)
        state = values_of(optimizer.variables)
        step = jax.make_jaxpr(optimizer.stateless_apply)
        return step(state, gradients, values_of(variables)).jaxpr

    def test_every_product_is_guarded_by_a_condition():
        """With accumulation no matrix product stands outside a conditional branch."""
        found = list(products(program(*built(gradient_accumulation_steps=CYCLE))))
        assert found
        assert all(found)

    def test_without_accumulation_no_product_is_guarded():
        """The check above can fail, and a plain step pays for no condition."""
        found = list(products(program(*built())))
        assert found
        assert not any(found)

    @pytest.fixture
    def product_count(monkeypatch):
        """Return a function that counts products where the compiled program runs."""
        calls = []
        matmul = keras.ops.matmul

        def counted(*operands):
            jax.debug.callback(lambda: calls.append(1))
            return matmul(*operands)

        monkeypatch.setattr(keras.ops, "matmul", counted)

        def count(steps, **arguments):
            calls.clear()
            optimizer, variables = built(**arguments)
            step = jax.jit(optimizer.stateless_apply)
            state, weights = values_of(optimizer.variables), values_of(variables)
            for _ in range(steps):
                gradients = [8.0 * jax.numpy.ones_like(w) for w in weights]
                weights, state = step(state, gradients, weights)
            jax.effects_barrier()
            return len(calls)

        return count

    @pytest.mark.parametrize("loss_scaled", [False, True], ids=["plain", "scaled"])
    def test_products_run_once_per_cycle(loss_scaled, product_count):
        """Seven calls of cycles of three run the products of two steps, not seven."""
        per_step = product_count(1, loss_scaled=loss_scaled)
        assert per_step > 0
        assert product_count(7, loss_scaled=loss_scaled) == 7 * per_step
        accumulating = {"gradient_accumulation_steps": CYCLE}
        runs = product_count(7, loss_scaled=loss_scaled, **accumulating)
        assert runs == 2 * per_step
