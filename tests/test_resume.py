"""Interrupted training continues bit for bit, from every kind of file Keras writes."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

EPOCHS = 4
STOP = 2
BATCH = 8

# Momentum, moments, both rates and the count of steps: all of it must be restored.
ARGUMENTS = {
    "learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 12),
    "adam_learning_rate": keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.5),
}
FORGOTTEN = 1e-3


def new_model():
    keras.utils.set_random_seed(41)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh", name="first"),
            keras.layers.Dense(8, activation="tanh", name="second"),
            keras.layers.Dense(3, name="head"),
        ],
        name="model",
    )
    model.compile(Muon(**ARGUMENTS), "mse", jit_compile=False)
    return model


@pytest.fixture(scope="module")
def data():
    numbers = np.random.default_rng(43)
    return [numbers.standard_normal((16, n)).astype("float32") for n in (6, 3)]


def trained(model, data, epochs=EPOCHS, **arguments):
    model.fit(
        *data, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, **arguments
    )
    return model


def everything(model):
    """Every number that training depends on, by its name or path."""
    kept = {variable.path: variable for variable in model.variables}
    kept |= {variable.name: variable for variable in model.optimizer.variables}
    return {name: keras.ops.convert_to_numpy(v).copy() for name, v in kept.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(data):
    return everything(trained(new_model(), data))


class InterruptionError(Exception):
    """What ends a process in the middle of training."""


class Interrupt(keras.callbacks.Callback):
    """Ends `fit` in the middle of an epoch, after its first batch."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations > STOP * 2:
            raise InterruptionError


def test_backup_and_restore(data, tmp_path, uninterrupted):
    """A run that dies in its third epoch starts that epoch again, in a new model."""

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(InterruptionError):
        trained(new_model(), data, callbacks=[backup(), Interrupt()])
    again = trained(new_model(), data, callbacks=[backup()])
    assert_same(everything(again), uninterrupted)


def test_a_checkpoint_of_the_whole_model(data, tmp_path, uninterrupted):
    """ModelCheckpoint with `.keras` files, loaded as the README says."""
    path = tmp_path / "{epoch}.keras"
    trained(
        new_model(),
        data,
        epochs=STOP,
        callbacks=[keras.callbacks.ModelCheckpoint(path)],
    )
    loaded = keras.saving.load_model(tmp_path / f"{STOP}.keras")
    trained(loaded, data, initial_epoch=STOP)
    # Loading drops the model's name from paths, so order decides.
    pairs = zip(everything(loaded).values(), uninterrupted.values(), strict=True)
    for value, expected in pairs:
        np.testing.assert_array_equal(value, expected)


@pytest.fixture(scope="module")
def weights_file(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.weights.h5"
    trained(new_model(), data, epochs=STOP).save_weights(path)
    return path


def test_a_weights_file_after_building_the_optimizer(
    data, weights_file, uninterrupted, recwarn
):
    """With the step that the README documents, the state is restored in full."""
    model = new_model()
    model.optimizer.build(model.trainable_variables)
    model.load_weights(weights_file)
    trained(model, data, initial_epoch=STOP)
    assert_same(everything(model), uninterrupted)
    assert not [w for w in recwarn if "optimizer" in str(w.message)]


def test_a_weights_file_without_building_warns(data, weights_file, uninterrupted):
    """Keras builds no optimizer here: a warning names the way out.

    Weights and the count of steps, which schedules need, are restored all the same.
    """
    model = new_model()
    with pytest.warns(UserWarning, match=r"optimizer\.build\(model\.trainable_variab"):
        model.load_weights(weights_file)
    trained(model, data, initial_epoch=STOP)
    after = everything(model)
    assert after["iteration"] == uninterrupted["iteration"]
    # What the loss of momentum and moments does: 0.02 and more.
    gaps = [np.abs(after[v.path] - uninterrupted[v.path]).max() for v in model.weights]
    print(gaps)
    assert min(gaps) > FORGOTTEN


if keras.backend.backend() == "tensorflow":

    @pytest.mark.parametrize("when", ["built", "deferred"])
    def test_a_checkpoint_of_tensorflow(when, data, tmp_path, uninterrupted):
        """`tf.train.Checkpoint` restores now, or as soon as the state is created."""
        import tensorflow as tf

        model = trained(new_model(), data, epochs=STOP)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        path = checkpoint.save(tmp_path / "checkpoint")
        again = new_model()
        if when == "built":
            again.optimizer.build(again.trainable_variables)
        restored = tf.train.Checkpoint(model=again, optimizer=again.optimizer)
        status = restored.restore(path)
        if when == "built":
            status.assert_existing_objects_matched()
        trained(again, data, initial_epoch=STOP)
        assert_same(everything(again), uninterrupted)
