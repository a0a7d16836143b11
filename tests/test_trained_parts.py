"""Models that train parts of themselves by steps of their own, an optimizer per part.

On JAX the optimizer looks whose variables it is about to move; these uses are right.
"""

import keras
import numpy as np

from keras_muon import Muon

X = np.random.default_rng(1).standard_normal((8, 8)).astype("float32")
Y = np.random.default_rng(2).standard_normal((8, 8)).astype("float32")


def new_part(name, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", name="first"),
            keras.layers.Dense(8, activation="tanh", name="second"),
            keras.layers.Dense(8, name="head"),
        ],
        name=name,
    )


def weights(model):
    return {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.weights}


class Halves(keras.Model):
    """Two parts with an optimizer each, as in a GAN, trained by a loop of its own."""

    def __init__(self):
        super().__init__(name="halves")
        self.maker, self.judge = new_part("maker", 5), new_part("judge", 6)
        self.compile(Muon.for_model(self.maker, learning_rate=0.05), "mse")
        self.judge_optimizer = Muon.for_model(self.judge, learning_rate=0.05)
        for optimizer, part in self.parts():
            optimizer.build(part.trainable_variables)

    def parts(self):
        return (self.optimizer, self.maker), (self.judge_optimizer, self.judge)

    def call(self, x):
        return self.judge(self.maker(x))

    def learn(self, x, y):
        """One step of each half."""
        for optimizer, part in self.parts():
            variables = part.trainable_variables
            gradients = GRADIENTS[keras.backend.backend()](self, variables, x, y)
            if keras.backend.backend() == "jax":
                apply_values(optimizer, gradients, variables)
            else:
                optimizer.apply(gradients, variables)


def apply_values(optimizer, gradients, variables):
    """JAX: the stateless step, in which Keras' own trainer calls an optimizer."""
    values, state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], gradients, [v.value for v in variables]
    )
    changed = [*variables, *optimizer.variables]
    for variable, value in zip(changed, [*values, *state], strict=True):
        variable.assign(value)


def error(model, x, y):
    return keras.ops.mean(keras.ops.square(keras.ops.subtract(model(x), y)))


def by_tape(model, variables, x, y):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = error(model, x, y)
    return tape.gradient(loss, [v.value for v in variables])


def by_torch(model, variables, x, y):
    model.zero_grad()
    error(model, x, y).backward()
    return [v.value.grad for v in variables]


def by_jax(model, variables, x, y):
    import jax

    def loss(values):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return error(model, x, y)

    return jax.grad(loss)([v.value for v in variables])


GRADIENTS = {"tensorflow": by_tape, "torch": by_torch, "jax": by_jax}


def test_halves_with_an_optimizer_each():
    """Legitimate company: neither optimizer takes the other half for its model's."""
    halves = Halves()
    before = weights(halves)
    losses = []
    for _ in range(3):
        loss = keras.ops.stop_gradient(error(halves, X, Y))
        losses.append(float(keras.ops.convert_to_numpy(loss)))
        halves.learn(X, Y)
    assert losses[-1] < losses[0]
    for optimizer, part in halves.parts():
        assert [r.path.split("/")[0] for r in optimizer.routes] == [part.name] * 6
        assert keras.ops.convert_to_numpy(optimizer.iterations) == 3
    for path, value in weights(halves).items():
        assert np.abs(value - before[path]).max() > 0.01, path


class OnePart(keras.Model):
    """A `train_step` of its own that trains one part and leaves the other."""

    def __init__(self):
        super().__init__(name="one_part")
        self.fixed, self.moving = new_part("fixed", 5), new_part("moving", 6)

    def call(self, x):
        return self.moving(self.fixed(x))

    def train_step(self, *arguments):
        if keras.backend.backend() == "jax":
            return self.stateless_step(*arguments)
        ((x, y),) = arguments
        variables = self.moving.trainable_variables
        gradients = GRADIENTS[keras.backend.backend()](self, variables, x, y)
        self.optimizer.apply(gradients, variables)
        return {"steps": self.optimizer.iterations}

    def stateless_step(self, state, data):
        import jax

        trainable, others, optimizer_state, metrics = state
        count = len(self.fixed.trainable_variables)

        def loss(part):
            weights = [*trainable[:count], *part]
            predicted, _ = self.stateless_call(weights, others, data[0])
            return keras.ops.mean(keras.ops.square(predicted - data[1]))

        gradients = jax.grad(loss)(trainable[count:])
        part, optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, gradients, trainable[count:]
        )
        return {}, ([*trainable[:count], *part], others, optimizer_state, metrics)


def test_a_train_step_on_a_part_of_the_variables():
    """The optimizer is built for that part, inside a model that owns more."""
    model = OnePart()
    model(X)
    optimizer = Muon(0.05)
    optimizer.build(model.moving.trainable_variables)
    before = weights(model)
    model.compile(optimizer, jit_compile=keras.backend.backend() == "jax")
    model.fit(X, Y, batch_size=4, verbose=0)
    assert [r.rule for r in optimizer.routes] == ["muon", "adamw"] * 2 + ["adamw"] * 2
    for path, value in weights(model).items():
        moved = np.abs(value - before[path]).max() > 0.01
        assert moved == path.startswith("moving"), path
