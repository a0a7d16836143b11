"""Heads of composite layers: what is called last inside of them."""

import keras

from keras_muon.output_heads import output_heads


class Inner(keras.layers.Layer):
    """Two matrices in a row."""

    def __init__(self):
        super().__init__()
        self.a = keras.layers.Dense(16)
        self.b = keras.layers.Dense(8)

    def call(self, x):
        self.add_loss(keras.ops.sum(x) * 0.0)
        return self.b(self.a(x))


class Outer(keras.layers.Layer):
    """A sum of branches, one of which is composite."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.norm = keras.layers.LayerNormalization()

    def call(self, x):
        return self.norm(x) + self.inner(x)


def test_composite_layers_inside_composite_layers():
    """Each is run on its own while the outer one is; both are left as they were."""
    outer = Outer()
    inputs = keras.Input((8,))
    model = keras.Model(inputs, outer(inputs))
    layers = [outer, outer.inner, outer.inner.a, outer.norm]
    before = [(dict(vars(layer)), len(layer._inbound_nodes)) for layer in layers]
    assert output_heads(model).ids == {id(outer.inner.b)}
    for layer, (attributes, nodes) in zip(layers, before, strict=True):
        assert vars(layer).keys() == attributes.keys()
        assert len(layer._inbound_nodes) == nodes


class Counting(keras.layers.Layer):
    """A block whose code cannot be run on symbolic tensors."""

    def __init__(self):
        super().__init__()
        self.wide = keras.layers.Dense(16)
        self.narrow = keras.layers.Dense(8)

    def build(self, shape):
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 16))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def call(self, x):
        if any(extent is None for extent in x.shape) or x.shape[0] == 16:
            raise ValueError("not symbolically")
        return x + self.narrow(self.wide(x))


def test_no_head_before_a_norm_that_ends_a_stream():
    """What stands before the last norm is a block, even if it cannot be run."""
    inputs = keras.Input((8,))
    x = keras.layers.LayerNormalization()(Counting()(inputs))
    assert output_heads(keras.Model(inputs, x)) == (set(), True)
