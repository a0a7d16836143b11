"""Whole training runs in float64 NumPy. This file imports nothing of keras_muon.

An optimizer keeps a state and moves step by step. The answers here are closed sums over
all gradients so far: no momentum is carried, no weight is moved twice.

    W_T = W_0 prod_t (1 - r_t d)  -  sum_t r_t D_t prod_{s > t} (1 - r_s d)

with rate r_t, decay d, and D_t the direction of step t.
"""

import numpy as np
from oracle import from_matrices, polar_by_svd, to_matrices

# Typed in from the sources: Jordan et al. 2024, and You Jiacheng 2025.
TRIPLES = {
    "jordan": [(3.4445, -4.7750, 2.0315)] * 5,
    "you": [
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ],
}


def muon_run(weight, gradients, axes, *, rates, decay, factors=None, **settings):
    """The weight after Muon's steps along the given gradients.

    `axes` is (batch_axes, in_axes, out_axes) of `factors`, the kernel's shape with some
    axes split. `settings` are those of `muon_direction`.
    """
    factors = factors or weight.shape
    gradients = [np.reshape(g, factors).astype(np.float64) for g in gradients]
    directions = [
        muon_direction(gradients[: step + 1], axes, **settings).reshape(weight.shape)
        for step in range(len(gradients))
    ]
    return weight_after(weight, directions, rates, decay)


def muon_direction(
    gradients, axes, *, momentum, nesterov, scaling, rms=0.2, schedule="you"
):
    """The direction of the last of several steps, its scale included."""
    age = np.arange(len(gradients))[::-1]
    share = momentum**age
    if nesterov:
        # The newest gradient counts in full once more, the others decay once more.
        share = momentum * share + (age == 0)
    update = np.tensordot(share, np.stack(gradients), axes=1)
    matrices = to_matrices(update, *axes)
    factor = polar_by_svd(matrices, TRIPLES[schedule])
    factor *= scale(scaling, rms, *matrices.shape[1:])
    return from_matrices(factor, update.shape, *axes)


def scale(scaling, rms, fan_in, fan_out):
    """What a scaling promises about an orthogonal matrix Q, not its formula.

    `size` is Q's root mean square; `gain` is how much larger the root mean square of
    an output is than that of its input.
    """
    q = np.eye(fan_in, fan_out)
    size = np.sqrt(np.mean(q**2))
    gain = np.sqrt(np.mean(q[0] ** 2) / np.mean(np.eye(fan_in)[0] ** 2))
    return {
        "naive": 1.0,
        "original": max(1.0, 1.0 / gain),
        "mup": 1.0 / gain,
        "moonlight": rms / size,
    }[scaling]


def adamw_run(weight, gradients, *, rates, decay, **settings):
    """The weight after AdamW's steps; `settings` are beta_1, beta_2 and epsilon."""
    gradients = np.asarray(gradients, np.float64)
    directions = [
        adamw_direction(gradients[: step + 1], **settings)
        for step in range(len(gradients))
    ]
    return weight_after(weight, directions, rates, decay)


def adamw_direction(gradients, *, beta_1, beta_2, epsilon):
    """The direction of the last step: both bias-corrected moments are averages.

    `epsilon` is what Kingma and Ba call epsilon hat: relative to the moment before its
    correction, so the corrected root sees more of it.
    """
    age = np.arange(len(gradients))[::-1]
    mean = np.average(gradients, axis=0, weights=beta_1**age)
    square = np.average(gradients**2, axis=0, weights=beta_2**age)
    seen = (1.0 - beta_2) * np.sum(beta_2**age)
    return mean / (np.sqrt(square) + epsilon / np.sqrt(seen))


def weight_after(weight, directions, rates, decay):
    """Decoupled weight decay and all steps, as the sum at the top of this file."""
    rates = np.broadcast_to(np.asarray(rates, np.float64), len(directions))
    kept = 1.0 - rates * decay
    result = np.asarray(weight, np.float64) * np.prod(kept)
    for step, direction in enumerate(directions):
        result -= rates[step] * direction * np.prod(kept[step + 1 :])
    return result
