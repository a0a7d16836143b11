"""What a step frees stays with the process, and is taken again by the next one."""

import os
import platform
import subprocess
import sys

import keras
import pytest

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "torch",
        reason="JAX and TensorFlow keep memory themselves",
    ),
    pytest.mark.skipif(
        platform.libc_ver()[0] != "glibc", reason="what glibc does with freed memory"
    ),
]

# In a process of its own: one large block that was freed before hides the effect.
PROGRAM = """
import resource

import keras
import numpy as np
import torch

from keras_muon import Muon, matrix_optimizer

if not {keeps}:
    matrix_optimizer.keep_freed_memory = lambda: None
rng = np.random.default_rng(0)
weights = [keras.Variable(rng.normal(size=(128, 128))) for _ in range(18)]
gradients = [torch.ones(128, 128) for _ in weights]
optimizer = Muon(routes={{".*": "muon"}})
optimizer.build(weights)
for _ in range(3):
    optimizer.apply(gradients)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    optimizer.apply(gradients)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_in_ten_steps(keeps):
    limits = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(keeps=keeps)],
        env={name: value for name, value in os.environ.items() if name not in limits},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout.split()[-1])


def test_steps_take_no_new_pages():
    """One stack of 1.2 MB, of which several are alive at a time.

    Seen: 2 to 610 pages in ten steps; without it 3,970 to 7,900.
    """
    assert pages_in_ten_steps(keeps=True) < 2000 < pages_in_ten_steps(keeps=False)
