"""What the layers of keras-hub do with the variables that they create directly.

Most of its layers consist of Keras' own. A few keep bare tensors: the experts of a
mixture, whose names are shared by all of its architectures, and tables of positions.
"""

from typing import Any

from keras_muon.matrix_view import MatrixView
from keras_muon.roles import Role


def keras_hub_role(layer: Any, variable: Any) -> Role | None:
    """Return the role of a variable of a keras-hub layer, without importing keras-hub.

    Args:
        layer: A `keras.Layer`.
        variable: One of the layer's own variables.

    Returns:
        The role, or None if the layer is not of keras-hub or the name says nothing.
    """
    if not type(layer).__module__.startswith("keras_hub."):
        return None
    if variable.name in EXPERT_KERNELS and len(variable.shape) == 3:
        view = MatrixView.of_last_axes(variable.shape)
        return Role(view, f"hidden matrices, {view.batch} experts")
    if variable.name in EXPERT_BIASES:
        return Role(None, "bias")
    if variable.name in POSITION_TABLES:
        return Role(None, "position table")
    return None


# (experts, in, out): "th,ehm->etm" in Mixtral, Qwen-MoE, GPT-OSS and Gemma 4.
EXPERT_KERNELS = (
    "expert_feedforward_gate_dense",
    "expert_feedforward_intermediate_dense",
    "expert_feedforward_output_dense",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "down_proj",
)
EXPERT_BIASES = ("gate_up_proj_bias", "down_proj_bias")
POSITION_TABLES = (
    "pos_embed",
    "position_embedding_table",
    "rel_embedding",
    "rel_pos_h",
    "rel_pos_w",
)
