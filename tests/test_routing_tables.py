"""The routing tables' figures, against counting by hand on one small model."""

import importlib.util
from collections import Counter
from pathlib import Path

import keras
import pytest
from real_catalogue import build

EXAMPLE = Path(__file__).parent.parent / "examples" / "routing_tables.py"

LAYERS, WIDTH, VOCABULARY, LENGTH = 2, 32, 96, 8


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("routing_tables", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_gpt2():
    return build("GPT-2")[0].model


# Per layer four square projections, and an MLP that is four times as wide.
ATTENTION = LAYERS * 4 * WIDTH**2
MLP = LAYERS * 2 * WIDTH * 4 * WIDTH
# By role: variables, parameters, Muon here, Muon of Keras.
EXPECTED = {
    "embeddings": (2, (VOCABULARY + LENGTH) * WIDTH, 0, 0),
    "attention kernels": (4 * LAYERS, ATTENTION, 4 * LAYERS, 0),
    "MLP kernels": (2 * LAYERS, MLP, 2 * LAYERS, 2 * LAYERS),
    # Query, key and value have (heads, width of a head), the output has a vector.
    "attention biases": (4 * LAYERS, 4 * LAYERS * WIDTH, 0, 3 * LAYERS),
    "other biases": (2 * LAYERS, LAYERS * 5 * WIDTH, 0, 0),
    "norms": (4 * LAYERS + 2, (4 * LAYERS + 2) * WIDTH, 0, 0),
}


def test_rows_are_what_counting_gives(example, small_gpt2):
    """Variables, parameters and rules of every role of a two-layer GPT-2."""
    rows, _ = example.analyse(small_gpt2)
    found = {
        row.role: (row.variables, row.parameters, row.ours["Muon"], row.builtin["Muon"])
        for row in rows
    }
    assert found == EXPECTED
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_totals_are_what_counting_gives(example, small_gpt2):
    """The built-in optimizer has the MLP only, and the biases of three projections."""
    _, totals = example.analyse(small_gpt2)
    assert totals == example.Totals(
        small_gpt2.count_params(),
        ATTENTION + MLP,
        ATTENTION + MLP,
        MLP,
        Counter(),
        Counter({"attention biases": 3 * LAYERS}),
    )


def test_the_builtin_steps_as_its_state_says(example):
    """One step: Newton-Schulz keeps the proportions within a rank-one gradient."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="dense")])
    assert example.rules_of_builtin(model) == ["Muon", "AdamW"]
    kernel = model.trainable_variables[0]
    before = keras.ops.convert_to_numpy(kernel)
    optimizer = keras.optimizers.Muon(1.0, weight_decay=None, adam_weight_decay=None)
    gradient = keras.ops.convert_to_tensor([[1.0, 2, 3, 4]] + [[0.0] * 4] * 2)
    optimizer.build([kernel])
    optimizer.apply([gradient], [kernel])
    step = before - keras.ops.convert_to_numpy(kernel)
    # AdamW would move every nonzero entry by the same amount.
    assert step[0, 3] / step[0, 0] == pytest.approx(4, rel=1e-3)


def test_markdown_shows_every_role_and_the_totals(example, small_gpt2):
    """One line per role between the header and the sentence of totals."""
    lines = example.markdown("GPT-2", *example.analyse(small_gpt2)).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:8]] == list(EXPECTED)
    assert "keras.optimizers.Muon gives Muon to 66.7% of them" in lines[-1]
    assert lines[-1].endswith("and wrongly to 6 attention biases.")


def test_a_path_without_a_role_is_refused(example):
    """A table never leaves a variable out."""
    with pytest.raises(ValueError, match="No pattern in ROLES matches 'a/b'"):
        example.role_of("a/b")


def test_the_readme_has_the_tables_of_all_models(example):
    """The section names the models that the script builds, in its order."""
    readme = (EXAMPLE.parent.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Routing tables of real models")[1].split("\n## ")[0]
    headers = [line for line in section.splitlines() if "| variables |" in line]
    assert [line.split(" | ")[0].strip("| ") for line in headers] == list(
        example.MODELS
    )
