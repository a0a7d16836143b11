"""Models of Keras' own layers: recurrent, low-rank, float8, tied and untied heads."""

import keras
import numpy as np
from real_models import (
    BIASES,
    CLASSES,
    LAYER_NORMS,
    Case,
    from_logits,
    matrix,
    random_tokens,
)

layers = keras.layers

VOCABULARY, LENGTH, WIDTH, HEADS, BATCH = 64, 6, 16, 2, 4


def tokens_and_classes():
    return random_tokens(VOCABULARY, BATCH, LENGTH), np.arange(BATCH) % CLASSES


def recurrent():
    """An LSTM in both directions (4 gates), then a GRU (3 gates)."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH, name="tokens")(tokens)
    lstm = layers.LSTM(8, return_sequences=True, name="lstm")
    x = layers.Bidirectional(lstm, name="both")(x)
    x = layers.GRU(12, name="gru")(x)
    model = keras.Model(tokens, layers.Dense(CLASSES, name="head")(x))
    expected = {
        "tokens/embeddings": "embedding",
        "both/(forward|backward)_lstm/lstm_cell/kernel": matrix(WIDTH, 4 * 8),
        "both/(forward|backward)_lstm/lstm_cell/recurrent_kernel": matrix(8, 4 * 8),
        "gru/gru_cell/kernel": matrix(2 * 8, 3 * 12),
        "gru/gru_cell/recurrent_kernel": matrix(12, 3 * 12),
        "head/kernel": "output head",
        **BIASES,
    }
    return Case(model, *tokens_and_classes(), from_logits(), expected)


def low_rank():
    """Hu et al. 2021: the kernels with factors are frozen, the factors are thin."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH, name="tokens")(tokens)
    attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")
    x = x + attention(x, x)
    einsum = layers.EinsumDense("btd,dhk->bthk", (None, 4, 6), name="einsum")
    x = layers.Reshape((LENGTH, 24))(einsum(x))
    dense = layers.Dense(WIDTH, name="dense")
    x = layers.GlobalAveragePooling1D()(layers.Dense(20, "gelu", name="free")(dense(x)))
    model = keras.Model(tokens, layers.Dense(CLASSES, name="head")(x))
    for layer in (attention.query_dense, attention.value_dense, einsum, dense):
        layer.enable_lora(2)
    expected = {
        "tokens/embeddings": "embedding",
        ".*/lora_kernel_[ab]": "low-rank factor",
        "attention/key/kernel": matrix(WIDTH, WIDTH),
        "attention/attention_output/kernel": matrix(WIDTH, WIDTH),
        "free/kernel": matrix(WIDTH, 20),
        "head/kernel": "output head",
        **BIASES,
    }
    return Case(model, *tokens_and_classes(), from_logits(), expected)


def float8():
    """Micikevicius et al. 2022: kernels stay float32, scales and histories join."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH, name="tokens")(tokens)
    attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")
    x = layers.LayerNormalization(name="norm")(x + attention(x, x))
    hidden = layers.Dense(24, "gelu", name="hidden")
    head = layers.Dense(CLASSES, name="head")
    model = keras.Model(tokens, head(layers.GlobalAveragePooling1D()(hidden(x))))
    projections = (attention.query_dense, attention.key_dense, attention.value_dense)
    for layer in (*projections, attention.output_dense, hidden, head):
        layer.quantize("float8")
    expected = {
        "tokens/embeddings": "embedding",
        "attention/.*/kernel": matrix(WIDTH, WIDTH),
        "hidden/kernel": matrix(WIDTH, 24),
        "head/kernel": "output head",
        ".*_(scale|amax_history)": "written by its layer",
        **BIASES,
        **LAYER_NORMS,
    }
    return Case(model, *tokens_and_classes(), from_logits(), expected)


def language_model(tied):
    """A block of attention and MLP; the head is the embedding again, or its own."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    embedding = layers.ReversibleEmbedding(
        VOCABULARY, WIDTH, tie_weights=tied, name="tokens"
    )
    x = embedding(tokens)
    y = layers.LayerNormalization(name="norm_a")(x)
    attention = layers.MultiHeadAttention(HEADS, 12, name="attention")
    x = x + attention(y, y, use_causal_mask=True)
    y = layers.LayerNormalization(name="norm_b")(x)
    y = layers.Dense(4 * WIDTH, "gelu", name="expand")(y)
    x = x + layers.Dense(WIDTH, name="contract")(y)
    model = keras.Model(tokens, embedding(x, reverse=True))
    expected = {
        "tokens/embeddings": "embedding",
        "attention/(query|key|value)/kernel": matrix(WIDTH, HEADS * 12),
        "attention/attention_output/kernel": matrix(HEADS * 12, WIDTH),
        "expand/kernel": matrix(WIDTH, 4 * WIDTH),
        "contract/kernel": matrix(4 * WIDTH, WIDTH),
        **BIASES,
        **LAYER_NORMS,
    }
    if not tied:
        expected["tokens/reverse_embeddings"] = "output head"
    targets = random_tokens(VOCABULARY, BATCH, LENGTH, seed=1)
    return Case(model, tokens_and_classes()[0], targets, from_logits(), expected)


VARIANTS = {
    "BiLSTM and GRU": recurrent,
    "LoRA": low_rank,
    "float8": float8,
    "LM with a tied head": lambda: language_model(tied=True),
    "LM with its own head": lambda: language_model(tied=False),
}
