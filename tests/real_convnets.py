"""Convolutional networks of keras.applications, at their full depth and width."""

import keras
import numpy as np
from real_models import BIASES, CLASSES, Case, matrix, random_images

applications = keras.applications

SIZE = 32  # pixels; the smallest that all of them take
HEAD = {"(predictions|convnext_tiny_head_dense)/kernel": "output head"}
NORMS = {
    r".*(bn|BN|norm)(_[a-zA-Z0-9]+)?/gamma": "gain",
    r".*(bn|BN|norm)(_[a-zA-Z0-9]+)?/beta": "shift",
}


def classifier(build, expected):
    model = build(
        weights=None,
        input_shape=(SIZE, SIZE, 3),
        classes=CLASSES,
        classifier_activation="softmax",
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # The loss must fall at every step, not on average.
    images, targets = random_images(8, SIZE), np.arange(8) % CLASSES
    loss = keras.losses.SparseCategoricalCrossentropy()
    return Case(model, images, targets, loss, expected | NORMS | BIASES | HEAD)


def resnet50():
    """He et al. 2016, table 1: bottlenecks of 1 x 1, 3 x 3 and 1 x 1 convolutions."""
    expected = {"conv1_conv/kernel": matrix(7 * 7 * 3, 64)}
    channels = 64
    for stage, (blocks, width) in enumerate(
        [(3, 64), (4, 128), (6, 256), (3, 512)], start=2
    ):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            expected |= {
                f"{name}_1_conv/kernel": matrix(channels, width),
                f"{name}_2_conv/kernel": matrix(3 * 3 * width, width),
                f"{name}_3_conv/kernel": matrix(width, 4 * width),
            }
            if block == 1:
                expected[f"{name}_0_conv/kernel"] = matrix(channels, 4 * width)
            channels = 4 * width
    return classifier(applications.ResNet50, expected)


def mobilenet_v2():
    """Sandler et al. 2018, table 2: expansion, channels, repeats."""
    expected = {
        "Conv1/kernel": matrix(3 * 3 * 3, 32),
        "expanded_conv_project/kernel": matrix(32, 16),
        ".*depthwise/kernel": "one filter per channel",
    }
    table = [(6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    channels, block = 16, 1
    for expansion, width, repeats in table:
        for _ in range(repeats):
            inner = expansion * channels
            expected[f"block_{block}_expand/kernel"] = matrix(channels, inner)
            expected[f"block_{block}_project/kernel"] = matrix(inner, width)
            channels, block = width, block + 1
    expected["Conv_1/kernel"] = matrix(320, 1280)
    return classifier(applications.MobileNetV2, expected)


def efficientnet_v2_b0():
    """Tan and Le 2021: fused blocks in stages 1 to 3, then depthwise with squeeze.

    The widths of B0 are those of version 1 (Tan and Le 2019, table 1), rounded down
    to multiples of 8; a squeeze has a quarter of the block's input.
    """
    expected = {
        "stem_conv/kernel": matrix(3 * 3 * 3, 32),
        "block1a_project_conv/kernel": matrix(3 * 3 * 32, 16),
        ".*_dwconv2/kernel": "one filter per channel",
        "top_conv/kernel": matrix(192, 1280),
    }
    # Stage, expansion, channels, repeats, window of the expansion.
    table = [(2, 4, 32, 2, 3), (3, 4, 48, 2, 3)]
    table += [(4, 4, 96, 3, 1), (5, 6, 112, 5, 1), (6, 6, 192, 8, 1)]
    channels = 16
    for stage, expansion, width, repeats, window in table:
        for letter in "abcdefgh"[:repeats]:
            name, inner = f"block{stage}{letter}", expansion * channels
            expected |= {
                f"{name}_expand_conv/kernel": matrix(window**2 * channels, inner),
                f"{name}_project_conv/kernel": matrix(inner, width),
            }
            if window == 1:
                squeezed = channels // 4
                expected[f"{name}_se_reduce/kernel"] = matrix(inner, squeezed)
                expected[f"{name}_se_expand/kernel"] = matrix(squeezed, inner)
            channels = width
    return classifier(
        lambda **arguments: applications.EfficientNetV2B0(
            include_preprocessing=False, **arguments
        ),
        expected,
    )


def convnext_tiny():
    """Liu et al. 2022: depthwise 7 x 7 as grouped convolutions, then two Dense."""
    start = "convnext_tiny_"
    expected = {
        f"{start}stem/.*_conv/kernel": matrix(4 * 4 * 3, 96),
        ".*_depthwise_conv/kernel": "too thin: 49 x 1",
        r".*_layer_scale/variable(_\d+)?": "not a matrix",
    }
    widths = (96, 192, 384, 768)
    for stage, width in enumerate(widths):
        block = rf"{start}stage_{stage}_block_\d"
        expected |= {
            f"{block}_pointwise_conv_1/kernel": matrix(width, 4 * width),
            f"{block}_pointwise_conv_2/kernel": matrix(4 * width, width),
        }
        if stage:
            name = f"{start}downsampling_block_{stage - 1}/.*conv_{stage - 1}/kernel"
            expected[name] = matrix(2 * 2 * widths[stage - 1], width)
    return classifier(
        lambda **arguments: applications.ConvNeXtTiny(
            include_preprocessing=False, **arguments
        ),
        expected,
    )


CONVNETS = {
    "ResNet50": resnet50,
    "MobileNetV2": mobilenet_v2,
    "EfficientNetV2B0": efficientnet_v2_b0,
    "ConvNeXtTiny": convnext_tiny,
}
