"""keras-muon inspect, and the cost of a run against numbers counted by hand."""

import onnx
import pytest
from cli_runs import altered, answered, exported, refused

from keras_muon.export import adamw_step, newton_schulz, serialized
from keras_muon.export.cli import main
from keras_muon.export.cost import cost

M, N = 768, 3072
# A step of Jordan's iteration on 768 x 3072: A = X X^T, b A + c A A, and the product
# with X. Normalization: |X|, its maximum, division, squares, sums of rows and division,
# once per entry each; the sum over rows; and two guards and a root.
STEP = 2 * M * M * N + 2 * M * M * M + 2 * M * M * N
NORMALIZATION = 6 * M * N + M + 3
# Bytes in float32: what each node reads and writes. Axes are 8 bytes each.
MATRIX, GRAM, NUMBER = 4 * M * N, 4 * M * M, 4
STEP_BYTES = (MATRIX + GRAM) + (GRAM + GRAM) + (GRAM + MATRIX + MATRIX)
NORMALIZATION_BYTES = (
    2 * MATRIX  # |X|
    + (MATRIX + 16 + NUMBER)  # maximum, with two axes
    + 3 * NUMBER  # guard
    + (2 * MATRIX + NUMBER)  # division
    + 2 * MATRIX  # squares
    + (MATRIX + 8 + 4 * M)  # sums of rows
    + (4 * M + 8 + NUMBER)  # their sum
    + 2 * NUMBER  # root
    + 3 * NUMBER  # guard
    + (2 * MATRIX + NUMBER)  # division
)


def test_jordan_on_768x3072_costs_what_a_hand_counts():
    counted = cost(newton_schulz((M, N), schedule="jordan"))
    assert counted.flops == 5 * STEP + NORMALIZATION == 40_782_791_427
    assert counted.bytes_moved == 5 * STEP_BYTES + NORMALIZATION_BYTES
    assert counted.bytes_in_and_out == 2 * MATRIX


def test_the_long_side_costs_more_and_a_tall_matrix_does_not():
    wide, tall = cost(newton_schulz((M, N))), cost(newton_schulz((N, M)))
    # There are more rows to sum.
    assert tall.flops - wide.flops == N - M
    assert tall.bytes_moved - wide.bytes_moved == 2 * 4 * (N - M)
    long_side = 2 * N * N * M + 2 * N**3 + 2 * N * N * M
    counted = cost(newton_schulz((M, N), side="out"))
    assert counted.flops == 5 * long_side + NORMALIZATION


def test_panels_are_counted_as_what_they_compute():
    """Two save a quarter of X X^T and of A A; mirroring moves entries, no more."""
    saved = (2 * M * M * N + 2 * M * M * M) // 4
    for shape in ((M, N), (N, M)):
        whole, half = (cost(newton_schulz(shape, panels=p)) for p in (1, 2))
        assert whole.flops - half.flops == 5 * saved
        assert half.bytes_moved > whole.bytes_moved
    three = cost(newton_schulz((M, N), panels=3))
    # (3 + 1) / (2 * 3) of them.
    assert cost(newton_schulz((M, N))).flops - three.flops == 5 * saved * 4 // 3


def test_open_extents_cost_what_the_branch_taken_costs():
    """Beside them two numbers of 8 bytes are written, read and compared."""
    model = newton_schulz(("m", "n"), dynamic=True)
    for shape in ((M, N), (N, M)):
        fixed, counted = (
            cost(newton_schulz(shape)),
            cost(model, dict(zip("mn", shape, strict=True))),
        )
        assert counted.flops == fixed.flops + 1
        assert counted.bytes_moved == fixed.bytes_moved + 16 + 17
    with pytest.raises(ValueError, match=r"leaves the extents \['n'\] open"):
        cost(model, {"m": 8})


def test_stacks_and_double_precision():
    """MatMul of a stack; scaling and adding are nodes of their own there."""
    extra = 3 * M * M + 2 * M * N  # c A A, b A, their sum; a X, and its sum
    counted = cost(newton_schulz((M, N), batch=4))
    assert counted.flops == 4 * (5 * (STEP + extra) + NORMALIZATION)
    double = cost(newton_schulz((M, N), dtype="float64"))
    assert double.bytes_in_and_out == 2 * 2 * MATRIX


def test_adamw_counts_entries():
    small, large = (cost(adamw_step((size,))) for size in (100, 1100))
    # 15 operations per entry, and the same scalars.
    assert (large.flops - small.flops) % 1000 == 0
    # Four tensors in, three out.
    assert large.bytes_in_and_out - small.bytes_in_and_out == 7 * 4 * 1000


def foreign(tmp_path):
    """A file of someone else: an operator that is not counted, an open batch."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "ai.onnx.ml": 3]>
        g (float[b, 4] x, int64[2] i) => (float[b, 4] y) { y = Softmax(x) }"""
    )
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_json_names_everything(capsys, tmp_path):
    path = exported(tmp_path, steps=2, batch="k")
    answer = answered(capsys, "inspect", path, "--extent", "k=3")
    port = {"dtype": "float32", "shape": ["k", 8, 4]}
    assert answer["inputs"] == [{"name": "update", **port}]
    assert answer["outputs"] == [{"name": "polar_factor", **port}]
    assert (answer["opsets"], answer["ir_version"]) == ({"": 18}, 8)
    assert answer["operators"]["MatMul"] == 6
    assert answer["specification"]["steps"] == 2
    assert answer["bytes"] == path.stat().st_size
    model = newton_schulz((8, 4), steps=2, batch=3)
    assert answer["cost"]["flops"] == cost(model).flops
    moved = answer["cost"]["bytes_moved"]
    assert answer["cost"]["flops_per_byte"] == round(cost(model).flops / moved, 2)


def test_it_tells_whether_a_file_is_as_it_was_exported(capsys, tmp_path):
    changed = altered(tmp_path, lambda model: setattr(model, "doc_string", "mine"))
    for path, wanted, shown in (
        (exported(tmp_path), True, "as exported yes"),
        (changed, False, "as exported no, it was changed since"),
        (foreign(tmp_path), None, "as exported unknown"),
    ):
        assert answered(capsys, "inspect", path)["as_exported"] is wanted
        assert main(["inspect", str(path)]) == 0
        printed = capsys.readouterr().out.replace("│", " ")
        assert shown in " ".join(printed.split())


def test_operators_inside_branches_are_counted(capsys, tmp_path):
    path = tmp_path / "open.onnx"
    path.write_bytes(serialized(newton_schulz(("m", "n"), dynamic=True)))
    assert answered(capsys, "inspect", path)["operators"]["Gemm"] == 2 * 15


def test_the_table_shows_what_the_json_holds(capsys, tmp_path):
    path = exported(tmp_path)
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    for words in ("keras_muon", "8 x 4", "float32", "Gemm", "jordan", "flops", "opset"):
        assert words in printed
    flops = answered(capsys, "inspect", path)["cost"]["flops"]
    assert f"{flops:,}" in printed


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("method", "standard", "method standard"),
        ("method", "planned", "method planned"),
        ("panels", 2, "panels 2"),
    ],
)
def test_method_and_panels_have_rows(capsys, tmp_path, name, value, shown):
    path = exported(tmp_path, **{name: value})
    assert answered(capsys, "inspect", path)["specification"][name] == value
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    rows = [" ".join(line.replace("│", " ").split()) for line in printed.splitlines()]
    assert shown in rows


def test_whole_products_have_no_row_of_panels(capsys, tmp_path):
    """Files from before there were panels are the same as those of today."""
    path = exported(tmp_path)
    assert "panels" not in answered(capsys, "inspect", path)["specification"]


def test_open_and_unknown_costs_are_not_numbers(capsys, tmp_path):
    answer = answered(capsys, "inspect", exported(tmp_path, batch="k"))
    assert "['k'] open" in answer["cost"]["unknown"]
    assert "--extent NAME=N" in answer["cost"]["unknown"]
    path = foreign(tmp_path)
    answer = answered(capsys, "inspect", path, "--extent", "b=2")
    assert "'Softmax' is not known" in answer["cost"]["unknown"]
    assert "was not made by" in answer["specification"]["missing"]
    assert answer["producer"] == ""
    assert main(["inspect", str(path)]) == 0
    assert "ai.onnx.ml" in capsys.readouterr().out


def test_the_largest_extent_is_counted(capsys, tmp_path):
    path = exported(tmp_path, batch="k")
    answer = answered(capsys, "inspect", path, "--extent", f"k={2**63 - 1}")
    assert answer["cost"]["bytes_in_and_out"] == 2 * 4 * 32 * (2**63 - 1)


def test_what_is_known_of_altered_files_is_shown(capsys, tmp_path):
    def remove_nodes(model):
        del model.graph.node[:]

    answer = answered(capsys, "inspect", altered(tmp_path, remove_nodes))
    assert answer["operators"] == {}
    assert answer["cost"] == {"flops": 0, "bytes_moved": 0, "bytes_in_and_out": 256}

    def change_type(model):
        model.graph.input[0].type.tensor_type.elem_type = 91

    path = altered(tmp_path, change_type)
    answer = answered(capsys, "inspect", path)
    assert answer["inputs"][0]["dtype"] == "unknown element type 91"
    assert answer["outputs"][0]["dtype"] == "float32"
    assert answer["cost"] == {"unknown": "91 is not known."}
    assert main(["inspect", str(path)]) == 0
    assert "unknown element type 91, 8 x 4" in capsys.readouterr().out


def test_a_cost_that_no_extent_would_give_asks_for_none(capsys, tmp_path):
    answer = answered(capsys, "inspect", foreign(tmp_path), "--extent", "b=2")
    assert "--extent" not in answer["cost"]["unknown"]


def test_bad_input_is_refused(capsys, tmp_path):
    path = exported(tmp_path, batch="k")
    for extent in ("k", "k=0", "k=-1", "k=two", "=3"):
        line = refused(capsys, "inspect", path, f"--extent={extent}")
        assert "--extent must be a name and a whole number" in line
    for number in (2**63, 10**20, "9" * 5000):
        line = refused(capsys, "inspect", path, f"--extent=k={number}")
        assert f"a whole number from 1 to {2**63 - 1}, such as" in line
    line = refused(capsys, "inspect", path, "--extent", "k=3", "--extent", "k=4")
    assert "--extent must give each name one value; received 'k' twice" in line
    assert "as 3 and 4. Leave one out." in line
    line = refused(capsys, "inspect", path, "--extent", "m=3")
    assert "leaves no extent 'm' open. Open: ['k']" in line
    assert "no file" in refused(capsys, "inspect", tmp_path / "none.onnx")
    path.write_bytes(path.read_bytes()[:99])
    assert "is the beginning of an ONNX file" in refused(capsys, "inspect", path)
    path.write_text("Dear diary")
    assert "is no ONNX model" in refused(capsys, "inspect", path)
