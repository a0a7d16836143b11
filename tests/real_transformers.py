"""Transformers of keras-hub: one or two layers, no tokenizer, no download."""

import keras_hub
import numpy as np
from real_models import (
    BIASES,
    CLASSES,
    LAYER_NORMS,
    SCALES,
    Case,
    from_logits,
    matrix,
    random_images,
    random_tokens,
)

models = keras_hub.models

VOCABULARY, LENGTH, WIDTH, HEADS = 96, 8, 32, 4
HEAD = WIDTH // HEADS


def causal_batch():
    tokens = random_tokens(VOCABULARY, 2, LENGTH + 1)
    inputs = {"token_ids": tokens[:, :-1], "padding_mask": np.ones_like(tokens[:, 1:])}
    return inputs, tokens[:, 1:]


def attention(prefix, width=WIDTH, queries=WIDTH, values=WIDTH):
    """Four projections: to all query heads, to all key and value heads, and back."""
    return {
        f"{prefix}/query/kernel": matrix(width, queries),
        f"{prefix}/(key|value)/kernel": matrix(width, values),
        f"{prefix}/attention_output/kernel": matrix(queries, width),
    }


def mlp(expand, contract, inner, width=WIDTH):
    return {expand: matrix(width, inner), contract: matrix(inner, width)}


FEED_FORWARD = (
    r".*/feedforward_(intermediate|gate)_dense/kernel",
    r".*/feedforward_output_dense/kernel",
)


def gpt2():
    """Radford et al. 2019: tied embeddings, biases everywhere, four times wider MLP."""
    backbone = models.GPT2Backbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=4 * WIDTH,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )
    expected = {
        "(token|position)_embedding/embeddings": "embedding",
        **attention(r"transformer_layer_\d/self_attention"),
        **mlp(*FEED_FORWARD, 4 * WIDTH),
        **BIASES,
        **LAYER_NORMS,
    }
    model = models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return Case(model, *causal_batch(), from_logits(), expected)


def llama():
    """Touvron et al. 2023: untied head, gated MLP, two query heads per key head."""
    backbone = models.LlamaBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_query_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        hidden_dim=WIDTH,
        intermediate_dim=48,
        tie_word_embeddings=False,
    )
    expected = {
        "token_embedding/embeddings": "embedding",
        "token_embedding/reverse_embeddings": "output head",
        **attention(r".*/self_attention", values=WIDTH // 2),
        **mlp(*FEED_FORWARD, 48),
        **SCALES,
    }
    model = models.LlamaCausalLM(backbone=backbone, preprocessor=None)
    return Case(model, *causal_batch(), from_logits(), expected)


def gemma():
    """Gemma Team 2024: one key head, heads of 16, kernels stored heads first.

    `intermediate_dim` counts the gate and the value together.
    """
    backbone = models.GemmaBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_query_heads=HEADS,
        num_key_value_heads=1,
        hidden_dim=WIDTH,
        intermediate_dim=2 * 40,
        head_dim=16,
    )
    expected = {
        "token_embedding/embeddings": "embedding",
        **attention(r"decoder_block_\d/attention", queries=HEADS * 16, values=16),
        **mlp(".*/ffw_gating(_2)?/kernel", ".*/ffw_linear/kernel", 40),
        **SCALES,
    }
    model = models.GemmaCausalLM(backbone=backbone, preprocessor=None)
    return Case(model, *causal_batch(), from_logits(), expected)


EXPERTS, EXPERT_WIDTH = 5, 24


def mixtral():
    """Jiang et al. 2024: a router and five experts, each a gated MLP of its own."""
    backbone = models.MixtralBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_query_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        hidden_dim=WIDTH,
        intermediate_dim=EXPERT_WIDTH,
        num_experts=EXPERTS,
        top_k=2,
        sliding_window=LENGTH,
    )
    into = r".*/experts/expert_feedforward_(gate|intermediate)_dense"
    expected = {
        "token_embedding/embeddings": "embedding",
        "token_embedding/reverse_embeddings": "output head",
        **attention(r".*/self_attention", values=WIDTH // 2),
        ".*/sparse_feedforward_gate_dense/kernel": matrix(WIDTH, EXPERTS),
        into: matrix(WIDTH, EXPERT_WIDTH, batch=EXPERTS),
        ".*/experts/expert_feedforward_output_dense": matrix(
            EXPERT_WIDTH, WIDTH, batch=EXPERTS
        ),
        **SCALES,
    }
    model = models.MixtralCausalLM(backbone=backbone, preprocessor=None)
    return Case(model, *causal_batch(), from_logits(), expected)


def bert():
    """Devlin et al. 2019, masked LM: the head is tied, its dense layer is hidden."""
    backbone = models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=64,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )
    expected = {
        "(token|position|segment)_embedding/embeddings": "embedding",
        **attention(r".*/self_attention_layer"),
        **mlp(*FEED_FORWARD, 64),
        "pooled_dense/kernel": matrix(WIDTH, WIDTH),
        "mlm_head/intermediate_dense/kernel": matrix(WIDTH, WIDTH),
        "mlm_head/output_bias": "not a matrix",
        **BIASES,
        **LAYER_NORMS,
    }
    tokens = random_tokens(VOCABULARY, 2, LENGTH)
    inputs = {
        "token_ids": tokens,
        "segment_ids": np.zeros_like(tokens),
        "padding_mask": np.ones_like(tokens),
        "mask_positions": np.array([[1, 4], [2, 6]], "int32"),
    }
    targets = random_tokens(VOCABULARY, 2, 2, seed=1)
    model = models.BertMaskedLM(backbone=backbone, preprocessor=None, activation=None)
    return Case(model, inputs, targets, from_logits(), expected)


def t5():
    """Raffel et al. 2020, version 1.1: heads wider together than the model, no bias.

    The table of relative positions, (buckets, heads), is looked up.
    """
    backbone = models.T5Backbone(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=64,
        key_value_dim=12,
        dropout=0.0,
        use_gated_activation=True,
        tie_embedding_weights=False,
    )
    attention = r".*/(self|cross)_attention"
    expected = {
        "token_embedding/embeddings": "embedding",
        "token_embedding/reverse_embeddings": "output head",
        "self_attention/embeddings": "embedding",
        f"{attention}/(query|key|value)_projector/kernel": matrix(WIDTH, HEADS * 12),
        f"{attention}/output_projector/kernel": matrix(HEADS * 12, WIDTH),
        r".*coder_layer_\d/(input|gate)_projector/kernel": matrix(WIDTH, 64),
        r".*coder_layer_\d/output_projector/kernel": matrix(64, WIDTH),
        ".*norm.*/weight": "not a matrix",
    }
    (source, _), (causal, targets) = causal_batch(), causal_batch()
    inputs = {f"encoder_{name}": value for name, value in source.items()}
    inputs |= {f"decoder_{name}": value for name, value in causal.items()}
    model = models.T5Seq2SeqLM(backbone=backbone, preprocessor=None)
    return Case(model, inputs, targets, from_logits(), expected)


def vit():
    """Dosovitskiy et al. 2021: patches of 4 x 4 x 3 enter by a convolution."""
    backbone = models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=4,
        num_layers=1,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        mlp_dim=64,
    )
    expected = {
        ".*/class_token": "not a matrix",
        ".*/patch_embedding/kernel": matrix(4 * 4 * 3, WIDTH),
        ".*/position_embedding/embeddings": "embedding",
        **attention(r".*/mha"),
        **mlp(".*/mlp/dense_1/kernel", ".*/mlp/dense_2/kernel", 64),
        "predictions/kernel": "output head",
        **BIASES,
        r".*/ln(_\d)?/gamma": "gain",
        r".*/ln(_\d)?/beta": "shift",
    }
    model = models.ViTImageClassifier(
        backbone=backbone, num_classes=CLASSES, preprocessor=None
    )
    return Case(
        model, random_images(4, 16), np.arange(4) % CLASSES, from_logits(), expected
    )


TRANSFORMERS = {
    "GPT-2": gpt2,
    "Llama": llama,
    "Gemma": gemma,
    "Mixtral": mixtral,
    "BERT": bert,
    "T5": t5,
    "ViT": vit,
}
