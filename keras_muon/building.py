"""What is checked when an optimizer is built for a model's variables."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_muon.adamw import refuse_what_vanishes
from keras_muon.gradients import require_unique
from keras_muon.routing import Route
from keras_muon.state import state_dtype

Variable = Any


def check_variables(variables: Sequence[Any]) -> None:
    """Refuse what is no variable of Keras, and a variable that is there twice.

    Args:
        variables: What `build` was given.

    Raises:
        TypeError: If one of them is something else.
        ValueError: If one of them is there twice.
    """
    for variable in variables:
        if not isinstance(variable, keras.Variable):
            raise TypeError(
                "`variables` must be keras.Variable objects; received a "
                f"{type(variable).__name__}. Pass model.trainable_variables, not the "
                "tensors or parameters in them."
            )
    require_unique("variables", variables)


def check_constants(
    optimizer: Any, variables: Sequence[Variable], routes: Sequence[Route]
) -> None:
    """Refuse constants of AdamW that the state cannot tell from 0 or 1.

    Args:
        optimizer: The `Muon` that holds them.
        variables: The variables.
        routes: Their routes.

    Raises:
        ValueError: If there are such constants.
    """
    names = ("adam_beta_1", "adam_beta_2", "adam_epsilon")
    constants = {name: getattr(optimizer, name) for name in names}
    pairs = zip(variables, routes, strict=True)
    for dtype in {state_dtype(v) for v, route in pairs if route.rule == "adamw"}:
        refuse_what_vanishes(constants, dtype)
