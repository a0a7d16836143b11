"""Tensors that layers of keras-hub keep without a layer of Keras around them."""

import keras
import keras_hub
import pytest

from keras_muon import Muon
from keras_muon.layer_views import role_of

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Experts(keras.layers.Layer):
    """Stands for a mixture of keras-hub: three experts from 6 to 10 features."""

    def build(self, shape):
        self.up_proj = self.add_weight((3, 6, 10), name="up_proj")
        self.pos_embed = self.add_weight((6, 10), name="pos_embed")
        self.down_proj_bias = self.add_weight((3, 6), name="down_proj_bias")


@pytest.mark.parametrize("module", ["keras_hub.src.models.x", "keras_hubble.x"])
def test_names_count_in_keras_hub_only(monkeypatch, module):
    """Elsewhere the same names prove nothing."""
    monkeypatch.setattr(Experts, "__module__", module)
    layer = Experts()
    layer.build((None, 6))
    roles = {v.name: role_of(layer, v) for v in layer.weights}
    known = module.startswith("keras_hub.")
    assert {role.certain for role in roles.values()} == {known}
    view = roles["up_proj"].view
    assert (view and view.matrix_shape) == ((3, 6, 10) if known else None)
    assert roles["pos_embed"].view is None


SMALL = {
    "vocabulary_size": 50,
    "num_layers": 1,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "num_experts": 3,
    "top_k": 2,
}
# Of each architecture: its own arguments, and (experts, in, out) of its expert tensors
# in the order of creation. Qwen and GPT-OSS keep gate and up side by side in out.
MIXTURES = {
    "MixtralBackbone": ({}, [(3, 16, 24), (3, 16, 24), (3, 24, 16)]),
    "QwenMoeBackbone": (
        {"moe_intermediate_dim": 8, "shared_expert_intermediate_dim": 8},
        [(3, 16, 16), (3, 8, 16)],
    ),
    "Qwen3MoeBackbone": (
        {"moe_intermediate_dim": 8, "head_dim": 4},
        [(3, 16, 16), (3, 8, 16)],
    ),
    "GptOssBackbone": ({"head_dim": 4}, [(3, 16, 48), (3, 24, 16)]),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_of_mixtures_are_matrices_of_their_own(name):
    """Nothing is unknown, and the end of the residual stream is no head."""
    arguments, expected = MIXTURES[name]
    model = getattr(keras_hub.models, name)(**SMALL, **arguments)
    optimizer = Muon.for_model(model, strict=True)
    optimizer.build(model.trainable_variables)
    experts = [
        r for r in optimizer.routes if "/experts/" in r.path and "bias" not in r.path
    ]
    assert [route.rule for route in experts] == ["muon"] * len(expected)
    assert [route.matrix_view.matrix_shape for route in experts] == expected
    heads = [route.path for route in optimizer.routes if route.reason == "output head"]
    assert heads == ["token_embedding/reverse_embeddings"]
