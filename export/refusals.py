"""What an optimizer can do and the exported graphs cannot: refused, never dropped."""

from collections.abc import Sequence
from typing import Any

from keras_muon.export.arguments import DTYPES, EMULATED
from keras_muon.routing import listed

Optimizer = Any
Variable = Any

# Options of `keras.optimizers.Optimizer`, and what the caller does instead.
REFUSED_OPTIONS = {
    "clipnorm": "clip the gradients before the step",
    "clipvalue": "clip the gradients before the step",
    "global_clipnorm": "clip the gradients before the step",
    "use_ema": "average the new parameters after the step",
    "loss_scale_factor": "divide the gradients before the step",
    "gradient_accumulation_steps": "average the gradients before the step",
    "nonfinite": "take no step where a gradient is not finite",
}


def muon_of(optimizer_or_model: Any) -> Optimizer:
    """Return the built Muon optimizer of a model, or the one that was given.

    Raises:
        TypeError: If there is none, or it is another optimizer.
        ValueError: If it is not built.
    """
    if optimizer_or_model is None or isinstance(optimizer_or_model, type):
        raise TypeError(
            "`optimizer_or_model` must be a keras_muon.Muon, or a model that was "
            f"compiled with one; received {optimizer_or_model!r}."
        )
    is_model = hasattr(optimizer_or_model, "compile")
    missing = None if is_model else optimizer_or_model
    optimizer = getattr(optimizer_or_model, "optimizer", missing)
    if optimizer is None:
        raise ValueError(
            "The model has no optimizer. Call model.compile(Muon(...), loss) first."
        )
    if not hasattr(optimizer, "routes"):
        way_out = ""
        if hasattr(optimizer, "inner_optimizer"):
            way_out = (
                "Graphs do not scale losses: divide the gradients by the loss scale "
                "before the step, and export its inner_optimizer."
            )
        raise TypeError(
            "`optimizer_or_model` must be a keras_muon.Muon, or a model that was "
            f"compiled with one; received {type(optimizer).__name__}. {way_out}".strip()
        )
    if not optimizer.built:
        raise ValueError(
            f"Optimizer {optimizer.name!r} is not built, so its variables are not "
            "known. Call optimizer.build(model.trainable_variables), or fit once."
        )
    return optimizer


def refuse_options(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose options change the step beyond the graphs.

    Args:
        optimizer: A built Muon.

    Raises:
        ValueError: If there are such options, with all their names.
    """
    refused = [
        f"{name}={getattr(optimizer, name)} ({way_out})"
        for name, way_out in REFUSED_OPTIONS.items()
        if getattr(optimizer, name, None) not in (None, False, "propagate")
    ]
    if refused:
        raise ValueError(
            f"Graphs do not express these options of {optimizer.name!r}: "
            f"{'; '.join(refused)}. Create the optimizer without them."
        )
    late = [variable.path for variable in optimizer.late_variables]
    if late:
        raise ValueError(
            f"Graphs count the same steps for all variables; the moments of "
            f"{listed(late)} began later, since a file had none for them. Export an "
            "optimizer that is built anew, or loaded from a file that has them."
        )


def refuse_variables(variables: Sequence[Variable]) -> None:
    """Refuse variables that a graph cannot move as Keras does.

    Args:
        variables: The model's variables.

    Raises:
        ValueError: If there are such variables, with their paths.
    """
    reasons = []
    for variable in variables:
        if getattr(variable, "constraint", None) is not None:
            reasons.append(
                f"{variable.path!r} has a constraint (apply it after the step)"
            )
        if getattr(variable, "overwrite_with_gradient", False):
            reasons.append(f"{variable.path!r} is overwritten with its gradient")
        if variable.dtype not in DTYPES:
            reasons.append(
                f"{variable.path!r} has dtype {variable.dtype} (keep variables in "
                "float32; the policy 'mixed_bfloat16' computes in bfloat16 anyway)"
            )
    if reasons:
        raise ValueError(f"Graphs cannot move these variables: {'; '.join(reasons)}.")


def emulation_of(compute_dtype: str, dtype: str) -> str | None:
    """Return what a graph emulates for an optimizer's `compute_dtype`, or refuse it.

    Args:
        compute_dtype: The optimizer's.
        dtype: Dtype of the state.

    Raises:
        ValueError: If products are computed in another wide dtype than the state's.
    """
    if compute_dtype in ("auto", dtype):
        return None
    if compute_dtype in EMULATED and dtype == "float32":
        return compute_dtype
    raise ValueError(
        f"Graphs do not express compute_dtype={compute_dtype!r} for variables of dtype "
        f"{dtype}. Create the optimizer with compute_dtype='auto'."
    )
