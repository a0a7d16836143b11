"""The arguments that Muon passes on to the base class of Keras, checked."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keras_muon.messages import (
    require_count,
    require_flag,
    require_number,
    unknown_name,
)


def check_base_arguments(received: Mapping[str, Any], own: Iterable[str]) -> None:
    """Refuse arguments that the base class does not know, or cannot use.

    Args:
        received: The arguments that Muon passes on.
        own: Names of Muon's own arguments, to be suggested too.

    Raises:
        TypeError: If a name is unknown, with a close match, or a value has the wrong
            type.
        ValueError: If a value is outside its range.

    Example:
        >>> check_base_arguments({"clipnorm": 1.0, "name": "muon"}, own=["momentum"])
    """
    for name, value in received.items():
        if name in OTHER_NAMES:
            raise TypeError(
                f"Unknown argument `{name}`; here it is {OTHER_NAMES[name]}."
            )
        if name in VARIABLES:
            raise TypeError(
                f"Unknown argument `{name}`: an optimizer of Keras is given its "
                "variables by model.compile, or by "
                "optimizer.build(model.trainable_variables)."
            )
        if name not in BASE_ARGUMENTS:
            known = sorted({*own, *BASE_ARGUMENTS})
            error = unknown_name("argument of Muon", name, known, likeness=0.7)
            raise TypeError(str(error))
        if value is not None:
            BASE_ARGUMENTS[name](name, value)


def _name(argument: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"`{argument}` must be a string; received {value!r}.")


def _positive(argument: str, value: Any) -> None:
    require_number(argument, value, open_minimum=True)


def _share(argument: str, value: Any) -> None:
    if value != 1:
        require_number(argument, value, below=1.0)


def _at_least_two(argument: str, value: Any) -> None:
    if not isinstance(value, int) or value < 2:
        raise ValueError(
            f"`{argument}` must be a whole number of at least 2; received {value!r}. "
            "None accumulates nothing."
        )


BASE_ARGUMENTS: dict[str, Callable[[str, Any], object]] = {
    "clipnorm": _positive,
    "clipvalue": _positive,
    "ema_momentum": _share,
    "ema_overwrite_frequency": require_count,
    "global_clipnorm": _positive,
    "gradient_accumulation_steps": _at_least_two,
    "loss_scale_factor": _positive,
    "name": _name,
    "use_ema": require_flag,
}

# What other optimizers call the same thing.
OTHER_NAMES = {
    "adam_lr": "`adam_learning_rate`",
    "adam_lr_ratio": '`adam_learning_rate={"ratio": x}`',
    "beta_1": "`adam_beta_1`",
    "beta_2": "`adam_beta_2`",
    "betas": "`adam_beta_1` and `adam_beta_2`",
    "decay": "`weight_decay`",
    "eps": "`adam_epsilon`",
    "epsilon": "`adam_epsilon`",
    "exclude_embeddings": "always on, unless `routes` names an embedding",
    "exclude_layers": "`exclude`, whose patterns match whole paths",
    "lr": "`learning_rate`",
    "muon_a": "`schedule`",
    "muon_b": "`schedule`",
    "muon_c": "`schedule`",
    "ns_coefficients": "`schedule`",
    "rms_rate": "`rms`",
    "wd": "`weight_decay`",
}

# What torch calls the variables.
VARIABLES = ("params", "parameters", "variables")
