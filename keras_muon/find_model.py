"""Finding the model whose variables an optimizer is being built for.

Keras hands an optimizer its variables and nothing else. But the model that is being
compiled, fitted or trained is alive in one of the calling functions, and it is
recognised with certainty: it owns every one of those variables.
"""

import inspect
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

import keras

from keras_muon.callers import local_variables
from keras_muon.sublayers import sublayers

# Methods that train a model. Others only read its optimizer: summaries, files.
TRAINING = ("fit", "train_on_batch")


def find_model(variables: Sequence[Any]) -> Any | None:
    """Return the model that owns all variables, from the calling functions.

    Args:
        variables: The `keras.Variable`s that the optimizer is built for.

    Returns:
        The model, or None. The nearest function that knows one decides: first the
        object whose method it is, then its local, then its global variables. Of
        several models there, the one with the fewest variables is taken; and instead
        of a model that only holds others and has no `call`, the one inside it.
    """
    wanted = {id(variable) for variable in variables}
    # Not this function's own frame: what it knows would then include itself.
    frame = inspect.currentframe().f_back  # type: ignore[union-attr]
    try:
        while wanted and frame is not None:
            for candidates in _candidates(frame):
                model = _smallest_owner(candidates, wanted)
                if model is not None:
                    return model
            frame = frame.f_back
        return None
    finally:
        del frame  # A frame that refers to itself would live until the next collection.


def may_compile_with_xla(variables: Sequence[Any]) -> bool:
    """Return False where TensorFlow compiles the owner of all variables without XLA.

    A loop of one's own around a model that was never compiled may do either. What JAX
    traces XLA compiles, whatever a model was compiled with.

    Args:
        variables: The `keras.Variable`s that the optimizer is built for.
    """
    if keras.backend.backend() != "tensorflow":
        return True
    model = find_model(variables)
    return model is None or not model.compiled or bool(model.jit_compile)


def refuse_another_model(optimizer: Any, variables: Sequence[Any]) -> None:
    """Refuse to train a model with an optimizer that was built for another one.

    On JAX Keras hands over values, which fit any model of equal shapes. Where they do
    not fit, as after a layer was frozen, it fails once they are out of the model, and
    all weights are lost.

    Args:
        optimizer: The optimizer that is about to take a step.
        variables: The `keras.Variable`s that it was built for.

    Raises:
        ValueError: If the model that is being trained with it has other variables, or
            trains others of them than it did.
    """
    frame = inspect.currentframe().f_back  # type: ignore[union-attr]
    try:
        while frame is not None:
            if frame.f_code.co_name in TRAINING:
                model: Any = local_variables(frame).get("self")
                if issubclass(type(model), keras.Model) and _trains(model, optimizer):
                    _require_owner(model, variables)
                    _require_same_trained(model, variables)
                    return
            frame = frame.f_back
    finally:
        del frame


def _trains(model: Any, optimizer: Any) -> bool:
    compiled = getattr(model, "optimizer", None)
    # A LossScaleOptimizer stands around the one that the user gave.
    inner = getattr(compiled, "inner_optimizer", None)
    return optimizer is compiled or optimizer is inner


def _require_owner(model: Any, variables: Sequence[Any]) -> None:
    owned = {id(variable) for variable in model.weights}
    for variable in variables:
        if id(variable) not in owned:
            raise ValueError(
                f"The optimizer was built for other variables, such as "
                f"{variable.path!r}, than those of model {model.name!r}. Its state and "
                "routes belong to them: compile each model with an optimizer of its "
                "own, such as Muon.for_model(model)."
            )


def _require_same_trained(model: Any, variables: Sequence[Any]) -> None:
    # A step of the user's own may hand over a part.
    if type(model).train_step is not keras.Model.train_step:
        return
    trained = model.trainable_variables
    ids, built = [id(v) for v in trained], [id(v) for v in variables]
    if ids == built:
        return
    changed = [f"{v.path!r} was thawed" for v in trained if id(v) not in built]
    changed += [f"{v.path!r} was frozen" for v in variables if id(v) not in ids]
    raise ValueError(
        f"The optimizer was built for {len(built)} variables of model {model.name!r}, "
        f"which now trains {len(ids)}: {(changed or ['their order changed'])[0]}. "
        "Compile the model with a new optimizer, such as Muon.for_model(model)."
    )


def _candidates(frame: FrameType) -> Iterable[Iterable[Any]]:
    local = local_variables(frame)
    yield [local["self"]] if "self" in local else []
    yield list(local.values())
    yield list(frame.f_globals.values())


def _smallest_owner(candidates: Iterable[Any], wanted: set[int]) -> Any | None:
    best, fewest = None, None
    for value in candidates:
        # `type` and not isinstance: a proxy's __class__ may run foreign code.
        if not issubclass(type(value), keras.Model):
            continue
        owned = {id(variable) for variable in value.weights}
        if not wanted <= owned:
            continue
        inner = None if _can_run(value) else _smallest_owner(sublayers(value), wanted)
        if inner is not None:
            return inner
        if fewest is None or len(owned) < fewest:
            best, fewest = value, len(owned)
    return best


def _can_run(model: Any) -> bool:
    return bool(getattr(model, "outputs", None)) or (
        type(model).call is not keras.Model.call
    )
