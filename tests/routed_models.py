"""A model of two hidden matrices and a head, and which of them Muon updates."""

import keras

layers = keras.layers


def dense(name, units=8):
    """A Dense layer without random values: they cost JAX a compilation per shape."""
    return layers.Dense(units, name=name, kernel_initializer="zeros")


def small_model(width=8):
    """Two hidden matrices, one of them of three axes, and a head."""
    inputs = keras.Input((2, 6))
    projection = layers.EinsumDense(
        "btd,ndh->btnh", (2, 4, 5), name="query", kernel_initializer="zeros"
    )
    x = layers.Flatten()(projection(dense("hidden", width)(inputs)))
    return keras.Model(inputs, dense("head", 4)(x))


def muon_paths(optimizer):
    return [route.path for route in optimizer.routes if route.rule == "muon"]


BY_LAYERS = ["hidden/kernel", "query/kernel"]
