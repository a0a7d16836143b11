"""A hundred models trained and dropped leave nothing of ours behind.

In a process of its own, where nothing but the loop can hold or drop an object. Models,
optimizers and Keras variables that are still alive are counted: the size of the process
says less, since TensorFlow keeps 0.5 MB per cycle with every optimizer, Adam included.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = '''
import gc
import json
import weakref

import keras
import numpy as np

from keras_muon import Muon

# What is imported stays: collections need not look at it again.
gc.freeze()
WIDTH = 8
X = np.ones((4, WIDTH), "float32")
hoard = []
seen = []


def cycle(leaking, run_eagerly=True):
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((WIDTH,)), dense(WIDTH), dense(WIDTH)])
    optimizer = Muon(ns_steps=1)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly)
    model.fit(X, X, verbose=0)
    if leaking:
        hoard.append(optimizer)
    seen.append([weakref.ref(thing) for thing in (model, optimizer)])


def alive():
    gc.collect()
    return sum(reference() is not None for pair in seen for reference in pair)


def variables():
    gc.collect()
    return sum(issubclass(type(thing), keras.Variable) for thing in gc.get_objects())


def left_by(kept, cleared, leaking):
    """Run cycles without and with `clear_session` after each; count what is left."""
    seen.clear()
    start = variables()
    for _ in range(kept):
        cycle(leaking)
    for _ in range(cleared):
        cycle(leaking)
        keras.backend.clear_session()
    # Compiled, as users train: fewer, because each is traced anew.
    for _ in range(2):
        cycle(leaking, run_eagerly=False)
    return {"alive": alive(), "variables": variables() - start}


cycle(leaking=False)
dropping = left_by(kept=80, cleared=20, leaking=False)
leaking = left_by(kept=2, cleared=2, leaking=True)
print(json.dumps({"dropping": dropping, "leaking": leaking}))
'''


@pytest.fixture(scope="module")
def left():
    """What a loop leaves that drops its models, and one that keeps the optimizers."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_a_hundred_models_leave_nothing(left):
    """Nothing of ours keeps a model or an optimizer, whether users clear or not."""
    assert left["dropping"]["alive"] == 0
    assert left["dropping"]["variables"] <= 0


def test_a_leak_would_be_seen(left):
    """The guards can fail: a list that keeps every optimizer is found by both."""
    assert left["leaking"]["alive"] == 2 + 2 + 2
    assert left["leaking"]["variables"] > 50
