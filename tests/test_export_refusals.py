"""What an export refuses rather than drops, and what it never overwrites."""

import keras
import numpy as np
import pytest
from small_models import built

from keras_muon import Muon
from keras_muon.export import StepRunner, optimizer_step, variable_values

OPTIONS = {
    "clipnorm": {"clipnorm": 1.0},
    "clipvalue": {"clipvalue": 0.5},
    "global_clipnorm": {"global_clipnorm": 1.0},
    "use_ema": {"use_ema": True},
    "loss_scale_factor": {"loss_scale_factor": 128.0},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "nonfinite": {"nonfinite": "skip"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_change_the_step_are_refused(name, tmp_path):
    model = built(Muon(0.02, **OPTIONS[name]))
    with pytest.raises(ValueError, match=rf"do not express these options.*\b{name}="):
        optimizer_step(model, tmp_path / "step")
    assert list(tmp_path.iterdir()) == []


def test_all_refused_options_are_named_together(tmp_path):
    model = built(Muon(0.02, clipvalue=0.5, use_ema=True))
    with pytest.raises(ValueError, match=r"clipvalue=0\.5 .*; use_ema=True"):
        optimizer_step(model, tmp_path / "step")


def test_constraints_are_refused_with_their_variables(tmp_path):
    model = built(kernel_constraint="non_neg")
    path = model.trainable_variables[0].path
    with pytest.raises(ValueError, match=rf"'{path}' has a constraint"):
        optimizer_step(model, tmp_path / "step")


def test_variables_that_are_their_gradients_are_refused(tmp_path):
    variable = keras.Variable(np.ones((4, 4), "float32"), name="scale")
    variable.overwrite_with_gradient = True
    optimizer = Muon(0.02, routes={"scale": "adamw"})
    optimizer.build([variable])
    with pytest.raises(ValueError, match="'scale' is overwritten with its gradient"):
        optimizer_step(optimizer, tmp_path / "step")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_variables_are_refused(dtype, tmp_path):
    model = built(dtype=dtype)
    with pytest.raises(ValueError, match=f"has dtype {dtype} .*'mixed_bfloat16'"):
        optimizer_step(model, tmp_path / "step")


def test_another_compute_dtype_is_refused_or_emulated(tmp_path, backend):
    emulated = built(Muon(0.02, compute_dtype="bfloat16"))
    folder = optimizer_step(emulated, tmp_path / "emulated")
    parameters, _ = variable_values(emulated)
    plain = optimizer_step(built(), tmp_path / "plain")
    steps = [
        StepRunner(where, parameters, device="cpu", threads=1).step(parameters, 0.02)
        for where in (folder, plain)
    ]
    path = emulated.trainable_variables[0].path
    difference = np.abs(steps[0][path] - steps[1][path]).max()
    # bfloat16 has 8 bits; the step is 0.02 * 0.2 * sqrt(8) times about 0.4.
    assert 1e-6 < difference < 2e-4
    if backend != "jax":  # It has no float64 by default, and says so itself.
        model = built(Muon(0.02, compute_dtype="float64"))
        with pytest.raises(ValueError, match="do not express compute_dtype='float64'"):
            optimizer_step(model, tmp_path / "step")


def test_other_optimizers_are_refused(tmp_path):
    scaled = keras.optimizers.LossScaleOptimizer(Muon(0.02))
    for optimizer, way_out in (("adamw", "AdamW"), (scaled, "its inner_optimizer")):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
        model.compile(optimizer, "mse")
        message = rf"must be a keras_muon\.Muon.*{way_out}"
        with pytest.raises(TypeError, match=message):
            optimizer_step(model, tmp_path / "step")
    with pytest.raises(TypeError, match="received dict"):
        variable_values({})


def test_models_without_a_built_optimizer_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="has no optimizer"):
        optimizer_step(model, tmp_path / "step")
    model.compile(Muon(0.02), "mse")
    with pytest.raises(ValueError, match="is not built"):
        optimizer_step(model, tmp_path / "step")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_is_not_overwritten_unasked(tmp_path):
    folder = optimizer_step(built(), tmp_path / "step")
    before = files(folder)
    with pytest.raises(FileExistsError, match="pass force=True"):
        optimizer_step(built(Muon(0.02, momentum=0.5)), folder)
    assert files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_file_is_no_folder_for_an_export(tmp_path):
    path = tmp_path / "step"
    path.write_text("mine")
    for force in (False, True):
        with pytest.raises(FileExistsError, match="is a file"):
            optimizer_step(built(), path, force=force)
    assert path.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_force_replaces_an_export_and_nothing_else(tmp_path):
    """Graphs of the old export go, other files of the folder stay."""
    folder = optimizer_step(built(), tmp_path / "step")
    assert (folder / "muon_6x8_float32.onnx").exists()
    (folder / "notes.txt").write_text("mine")
    optimizer = Muon(0.02, routes={".*kernel": "adamw", ".*bias": "adamw"})
    optimizer_step(built(optimizer), folder, force=True)
    assert not (folder / "muon_6x8_float32.onnx").exists()
    assert (folder / "adamw_6x8_float32.onnx").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_force_touches_nothing_outside_of_the_folder(tmp_path):
    """Not even if the manifest there says so."""
    folder = optimizer_step(built(), tmp_path / "step")
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(b"mine")
    manifest = folder / "manifest.json"
    text = manifest.read_text().replace("muon_6x8_float32.onnx", "../outside.onnx")
    manifest.write_text(text)
    optimizer_step(built(), folder, force=True)
    assert outside.read_bytes() == b"mine"


def test_a_missing_graph_is_named(tmp_path):
    model = built()
    parameters, _ = variable_values(model)
    folder = optimizer_step(model, tmp_path / "step")
    (folder / "muon_6x8_float32.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"muon_6x8_float32\.onnx"):
        StepRunner(folder, parameters, device="cpu")


def test_a_folder_with_other_files_is_used(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"mine")
    optimizer_step(built(), tmp_path)
    assert {"model.keras", "manifest.json"} <= files(tmp_path).keys()


def test_nothing_is_left_behind_by_an_error(tmp_path, monkeypatch):
    """A disk that fills up while the last file is written."""

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        optimizer_step(built(), tmp_path / "step")
    assert list(tmp_path.iterdir()) == []
