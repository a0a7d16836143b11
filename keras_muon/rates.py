"""Learning rates: checked, and the one of AdamW derived from Muon's."""

import inspect
import numbers
from typing import Any

import keras
from keras import ops

from keras_muon.messages import require_number

Tensor = Any


class AdamRate:
    """The learning rate of the variables that AdamW updates.

    Args:
        rate: None to use Muon's, a float, a schedule, a callable without arguments, or
            `{"ratio": x}` for x times Muon's.
        learning_rate: The `learning_rate` that Muon is created with.

    Raises:
        TypeError: If `rate` is none of these.
        ValueError: If `rate` is negative, or a proportion to zero.

    A float keeps its proportion to a float `learning_rate`, so that callbacks which
    lower the one lower the other. Beside a schedule a float stays constant.

    Example:
        >>> rate = AdamRate(0.001, learning_rate=0.01)
        >>> round(float(rate(0.005, 0)), 6)
        0.0005
    """

    def __init__(self, rate: Any, learning_rate: Any):
        self.given, self.ratio = None, None
        if isinstance(rate, dict) and rate.keys() == {"ratio"}:
            self.ratio = require_number('adam_learning_rate["ratio"]', rate["ratio"])
        elif rate is not None:
            self.given = checked_rate("adam_learning_rate", rate)
        if isinstance(self.given, float) and isinstance(learning_rate, float):
            if learning_rate == 0.0 and self.given != 0.0:
                raise ValueError(
                    f"`adam_learning_rate` {self.given} keeps its proportion to "
                    "`learning_rate`, which is 0. Give the largest rate that you plan "
                    "to use as `learning_rate`, and lower it by a callback or schedule."
                )
            self.ratio = self.given / learning_rate if learning_rate else 1.0

    def __call__(self, learning_rate: Tensor, iterations: Tensor) -> Tensor:
        """Return the rate of a step.

        Args:
            learning_rate: Muon's rate at this step.
            iterations: The step counter.

        Returns:
            AdamW's rate at this step.
        """
        if self.ratio is not None:
            return ops.multiply(learning_rate, self.ratio)
        if self.given is None:
            return learning_rate
        if isinstance(self.given, keras.optimizers.schedules.LearningRateSchedule):
            return self.given(iterations)
        return self.given() if callable(self.given) else self.given

    def __repr__(self) -> str:
        if self.ratio is not None:
            return f"AdamRate({self.ratio:g} * learning_rate)"
        given = "learning_rate" if self.given is None else repr(self.given)
        return f"AdamRate({given})"

    def to_json(self, learning_rate: Any) -> Any:
        """Return the argument that recreates this rate beside `learning_rate`."""
        if self.ratio is not None:
            number = isinstance(learning_rate, float) and learning_rate > 0.0
            return self.ratio * learning_rate if number else {"ratio": self.ratio}
        if self.given is None or isinstance(self.given, float):
            return self.given
        return keras.saving.serialize_keras_object(self.given)


def checked_rate(argument: str, rate: Any) -> Any:
    """Return a rate as Keras wants it: a float, a schedule or a callable.

    Args:
        argument: Name of the argument, as the user wrote it.
        rate: What the user gave; a whole number becomes a float.

    Returns:
        The rate.

    Raises:
        TypeError: If it is neither a number nor callable, or a callable that takes
            arguments.
        ValueError: If it is negative or not finite.
    """
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(rate, schedule):
        return rate
    if callable(rate) and not ops.is_tensor(rate):
        _check_callable(argument, rate)
        return rate
    if isinstance(rate, numbers.Real) or ops.is_tensor(rate):
        return require_number(argument, rate)
    way_out = "Pass a float, a LearningRateSchedule or a callable."
    if argument == "adam_learning_rate":
        way_out += ' {"ratio": x} is x times `learning_rate`.'
    return require_number(argument, rate, way_out=way_out)


def _check_callable(argument: str, rate: Any) -> None:
    try:
        inspect.signature(rate).bind()
    except ValueError:
        return  # Written in C: it does not say what it takes.
    except TypeError as error:
        raise TypeError(
            f"`{argument}` is called without arguments; received {rate!r}: {error}. "
            "For a rate by step pass a keras.optimizers.schedules.LearningRateSchedule."
        ) from None


def checked_decay(argument: str, decay: Any) -> float | None:
    """Return a weight decay, or refuse it by name.

    Args:
        argument: Name of the argument, as the user wrote it.
        decay: None or a number of at least 0.

    Returns:
        The decay.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative or not finite.
    """
    if decay is None:
        return None
    way_out = "Pass None for no decay."
    if argument == "adam_weight_decay":
        way_out += " 'same' takes `weight_decay`."
    return require_number(argument, decay, way_out=way_out)
