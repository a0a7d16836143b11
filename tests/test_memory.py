"""A hundred models trained and dropped leave nothing of ours behind.

In a process of its own, where nothing but the loop can hold or drop an object.
"""

import json
import subprocess
import sys

SCRIPT = """
import gc
import json
import os
import sys
import weakref

import keras
import numpy as np

from keras_muon import Muon

WIDTH, WARM = 256, 4
leaking = sys.argv[1] == "leaking"
kept, cleared = int(sys.argv[2]), int(sys.argv[3])
X = np.ones((4, WIDTH), "float32")
hoard = []
seen = []


def cycle(run_eagerly=True):
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((WIDTH,)), dense(WIDTH), dense(WIDTH)])
    optimizer = Muon(ns_steps=1)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly)
    model.fit(X, X, verbose=0)
    if leaking:
        hoard.append(optimizer)
    seen.append([weakref.ref(thing) for thing in (model, optimizer)])


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def alive():
    gc.collect()
    return sum(reference() is not None for pair in seen for reference in pair)


def variables():
    gc.collect()
    return sum(issubclass(type(thing), keras.Variable) for thing in gc.get_objects())


cycle()
start = variables()
for _ in range(kept):
    cycle()
for number in range(cleared):
    cycle()
    keras.backend.clear_session()
    if number == WARM:
        memory = resident()
result = {"memory": resident() - memory}
# Compiled, as users train: fewer, because each is traced anew.
for _ in range(3):
    cycle(run_eagerly=False)
result |= {"alive": alive(), "variables": variables() - start}
print(json.dumps(result))
"""

# Largest growth seen: 1.2 MB; the leak below takes 20 MB in half as many cycles.
# Without `clear_session` TensorFlow itself keeps 0.5 MB per cycle, with every
# optimizer, so memory is measured where users clear it.
GROWTH = 10e6


def measured(what, kept, cleared):
    """Run cycles without and with `clear_session` between them; return what is left."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, what, str(kept), str(cleared)],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_a_hundred_models_leave_nothing():
    """Nothing of ours keeps a model or an optimizer, whether users clear or not."""
    left = measured("dropping", 60, 40)
    assert left["alive"] == 0
    assert left["variables"] <= 0
    assert left["memory"] < GROWTH


def test_a_leak_would_be_seen():
    """The guards can fail: a list that keeps every optimizer is found by all three."""
    left = measured("leaking", 1, 20)
    assert left["alive"] == 1 + 1 + 20 + 3
    assert left["variables"] > 100
    assert left["memory"] > GROWTH
