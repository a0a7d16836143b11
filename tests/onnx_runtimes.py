"""Two independent runtimes: ONNX Runtime, and the standard's own evaluator."""

from onnx.reference import ReferenceEvaluator

from keras_muon.export import run


def by_onnxruntime(model, *arrays):
    """The outputs on the CPU provider, in one thread."""
    return run(model, *arrays, device="cpu", threads=1)


def by_reference(model, *arrays):
    """The outputs of NumPy code that reads the standard literally."""
    names = [value.name for value in model.graph.input]
    results = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    return results[0] if len(results) == 1 else tuple(results)


RUNTIMES = {"onnxruntime": by_onnxruntime, "reference": by_reference}
