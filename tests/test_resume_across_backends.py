"""A `.keras` file of one backend continues on every other, as if never interrupted.

One environment of tox has all three backends, that of torch, and only there are these
tests collected: the rule is the backend's name, so nothing is skipped by accident.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

WORKER = Path(__file__).parent / "resume_worker.py"
BACKENDS = ("tensorflow", "jax", "torch")

# Largest error seen: 3.9e-7. What is trained after the interruption is 0.06.
TOLERANCE = 1e-5


def start(backend, folder):
    """Start a process that lives on this backend alone."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(WORKER), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"KERAS_BACKEND": backend},
    )


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def distance(first, second):
    """The largest difference between two sets of weights."""
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


# The rule: the environment of torch has the other two backends as well.
if keras.backend.backend() == "torch":

    @pytest.fixture(scope="module")
    def folder(tmp_path_factory):
        """What the processes of all backends left, after they read each other."""
        folder = tmp_path_factory.mktemp("resume")
        workers = [start(backend, folder) for backend in BACKENDS]
        try:
            # The first lines say that all files are there; without one it failed.
            saved = [worker.stdout.readline() for worker in workers]
            told = [worker.communicate("continue\n", timeout=300) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        for worker, (_, errors) in zip(workers, told, strict=True):
            assert worker.returncode == 0, errors[-3000:]
        assert saved == ["saved\n"] * len(BACKENDS)
        return folder

    def test_all_backends_are_here():
        """This environment must have all three, or the tests below mean nothing."""
        for backend in BACKENDS:
            assert importlib.util.find_spec(backend), f"{backend} is not installed"

    @pytest.mark.parametrize("reader", BACKENDS)
    @pytest.mark.parametrize("origin", BACKENDS)
    def test_training_continues(origin, reader, folder):
        """Saved on one, continued on the other: the run that was never interrupted."""
        continued = arrays(folder / f"{origin}-{reader}.npz")
        expected = arrays(folder / f"{origin}.npz")
        saved = arrays(folder / f"{origin}-saved.npz")
        assert continued.pop("steps") == expected.pop("steps") > saved.pop("steps")
        assert distance(continued, expected) < TOLERANCE
        assert distance(saved, expected) > 1000 * TOLERANCE
