"""Muon for Keras 3: momentum, Newton-Schulz, a step that knows the matrix's shape."""

import inspect
from collections.abc import Callable
from typing import Any, Self

import keras

from keras_muon.base_arguments import check_base_arguments
from keras_muon.batching import check_batched
from keras_muon.description import print_description
from keras_muon.matrix_optimizer import MatrixOptimizer
from keras_muon.messages import require_choice, require_flag, require_number
from keras_muon.planning import check_compute_dtype, dtype_reason
from keras_muon.rates import AdamRate, checked_decay, checked_rate
from keras_muon.route_source import RouteSource
from keras_muon.scaling import ADAMW_RMS, get_scaling
from keras_muon.schedules import SCHEDULES, Schedule, get_schedule
from keras_muon.settings import PLAIN_ARGUMENTS, FinalSettings
from keras_muon.state import bytes_of

Tensor = Any
Variable = Any

NONFINITE = ("propagate", "skip")


@keras.saving.register_keras_serializable(package="keras_muon")
class Muon(FinalSettings, MatrixOptimizer):
    """Muon: orthogonalized momentum for hidden matrices, AdamW for the rest.

    For every hidden matrix W with gradient G:

        M <- momentum * M + G
        U  = G + momentum * M                 (nesterov; else U = M)
        O  = polar factor of U, by Newton-Schulz
        W <- (1 - learning_rate * weight_decay) * W - learning_rate * scale * O

    Embeddings, output heads, biases and gains are updated by AdamW. What is what
    follows from the model's layers; `describe()` shows it.

    Args:
        learning_rate: A float, a `keras.optimizers.schedules.LearningRateSchedule`, or
            a callable. With `scaling="moonlight"` a rate that suits AdamW suits Muon.
        momentum: Decay of the momentum per step, in [0, 1).
        nesterov: Whether to look one step ahead.
        weight_decay: Share of a hidden matrix removed per step and unit of learning
            rate, decoupled from the gradient. None for no decay.
        scaling: How the step depends on the matrix's shape: `"moonlight"`
            (rms * sqrt(max(in, out))), `"original"` (sqrt(max(1, out / in))), `"mup"`
            (sqrt(out / in)) or `"naive"` (1).
        rms: Root mean square per entry of a moonlight update, dimensionless.
        schedule: Coefficients of Newton-Schulz: a name in `keras_muon.SCHEDULES`, or a
            `keras_muon.Schedule`. `"auto"` compresses the leading singular values of
            matrices with 384 rows or more and takes three steps, and five on others.
        ns_steps: Number of Newton-Schulz steps. None takes the schedule's own. With a
            number nothing is compressed.
        compute_dtype: Dtype of the matrix products, see `orthogonalize`.
        adam_learning_rate: Rate of AdamW. None follows `learning_rate`. A float keeps
            its proportion to a `learning_rate` that callbacks change, and so does
            `{"ratio": x}`. A schedule counts the same steps.
        adam_beta_1: Decay of AdamW's first moment, in [0, 1).
        adam_beta_2: Decay of AdamW's second moment, in [0, 1).
        adam_epsilon: Added to the root of the second moment.
        adam_weight_decay: Decay of AdamW's variables. `"same"` is `weight_decay`.
        exclude: Regular expressions that must match whole paths of variables; what
            they match goes to AdamW.
        routes: A dictionary from such expressions to `"muon"`, `"adamw"`, a
            `MatrixView` or its axes; or the whole table, a list of `Route`.
        batched: Whether matrices of equal shape share one iteration. `"auto"` does so
            where steps are faster, or compile sooner; and on torch on a CPU it works
            on several stacks or large matrices at a time, each by its share of torch's
            threads.
        strict: Whether a matrix of an unknown layer is an error. If False, it goes to
            AdamW with a warning.
        nonfinite: What an infinite gradient, or one that is not a number, does.
            `"propagate"` lets it into its own matrix, as AdamW lets it into its own
            entry; `"skip"` leaves that variable and its state as they are, also where
            the square that AdamW takes of a gradient, or the sum that momentum makes,
            would be infinite.
        **base_arguments: The other arguments of `keras.optimizers.Optimizer`: `name`,
            `clipnorm`, `clipvalue`, `global_clipnorm`, `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor`,
            `gradient_accumulation_steps`.

    Raises:
        TypeError: If an argument has the wrong type, or none of this name exists.
        ValueError: If an argument is outside its range.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((16,)), keras.layers.Dense(8), keras.layers.Dense(4)])
        >>> model.compile(optimizer=Muon(learning_rate=1e-3), loss="mse")

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025,
    arXiv:2502.16982.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float | None = 0.004,
        scaling: str = "moonlight",
        rms: float = ADAMW_RMS,
        schedule: str | dict | Schedule = "auto",
        ns_steps: int | None = None,
        compute_dtype: str = "auto",
        adam_learning_rate: Any = None,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.95,
        adam_epsilon: float = 1e-7,
        adam_weight_decay: float | str | None = "same",
        exclude: Any = None,
        routes: Any = None,
        batched: str | bool = "auto",
        strict: bool = False,
        nonfinite: str = "propagate",
        **base_arguments: Any,
    ):
        own = inspect.signature(Muon).parameters
        check_base_arguments(base_arguments, own.keys() - {"base_arguments"})
        learning_rate = checked_rate("learning_rate", learning_rate)
        weight_decay = checked_decay("weight_decay", weight_decay)
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, **base_arguments
        )
        self.momentum = require_number("momentum", momentum, below=1.0)
        self.nesterov = require_flag("nesterov", nesterov)
        self.scaling = scaling
        self.rms = require_number("rms", rms, open_minimum=True)
        self.scale = get_scaling(scaling, rms=rms)
        self.schedule = get_schedule(schedule)
        self.schedule.take(ns_steps, argument="ns_steps")
        self.ns_steps = None if ns_steps is None else int(ns_steps)
        self.compute_dtype = check_compute_dtype(compute_dtype)
        self._adam_rate = AdamRate(adam_learning_rate, learning_rate)
        self.adam_beta_1 = require_number("adam_beta_1", adam_beta_1, below=1.0)
        self.adam_beta_2 = require_number("adam_beta_2", adam_beta_2, below=1.0)
        self.adam_epsilon = require_number("adam_epsilon", adam_epsilon)
        same = isinstance(adam_weight_decay, str) and adam_weight_decay == "same"
        self.adam_weight_decay = (
            "same" if same else checked_decay("adam_weight_decay", adam_weight_decay)
        )
        self.batched = check_batched(batched)
        self.strict = strict
        self.nonfinite = require_choice("nonfinite", nonfinite, NONFINITE)
        # Plain data about variables; as ordinary attributes they would be tracked.
        object.__setattr__(self, "_route_source", RouteSource(exclude, routes, strict))
        object.__setattr__(self, "_routes", ())
        object.__setattr__(self, "_is_made", True)

    @classmethod
    def for_model(cls, model: Any, **arguments: Any) -> Self:
        """Return an optimizer whose routes are read from a model's layers now.

        A bare `Muon()` finds its model when it is built by `compile` and `fit`. Use
        this where it cannot: in loops far from the model, and to see errors early.

        Args:
            model: A built `keras.Model`.
            **arguments: The arguments of `Muon`.

        Returns:
            The optimizer, not built yet.

        Raises:
            TypeError: If `model` is not a Keras model.
            ValueError: If it has no variables yet, or a pattern matches none of them.

        Example:
            >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)])
            >>> optimizer = Muon.for_model(model, learning_rate=1e-3)
        """
        if not isinstance(model, keras.Layer):
            raise TypeError(
                f"`model` must be a keras.Model; received {type(model).__name__}."
            )
        if not model.trainable_variables:
            raise ValueError(
                f"`model` {model.name!r} has no trainable variables yet. Build it: "
                "model.build(input_shape), or call it once on data."
            )
        optimizer = cls(**arguments)
        source = optimizer._route_source
        source.table = source.resolve(model.trainable_variables, model)
        return optimizer

    @property
    def adam_learning_rate(self) -> Tensor:
        """AdamW's rate at this step, as `learning_rate` is Muon's."""
        return keras.ops.convert_to_tensor(self.adam_rate(self.learning_rate))

    @property
    def adam_rate_rule(self) -> AdamRate:
        """How AdamW's rate follows from Muon's."""
        return self._adam_rate

    def describe(self, print_fn: Callable[[str], object] | None = None) -> None:
        """Print how each variable is updated, and the totals.

        Args:
            print_fn: Called with the whole text. None prints to standard output.

        Raises:
            ValueError: If the optimizer is not built, or has no variables.
        """
        if self.built and not self.routes:
            raise ValueError(
                "describe() has nothing to show: this optimizer was built for no "
                "variables. Set trainable = True for what it shall train."
            )
        if not self.routes:
            raise ValueError(
                "describe() needs variables: call it after fit, or build the optimizer "
                "by optimizer.build(model.trainable_variables)."
            )
        masters = bytes_of(self._masters)
        plans = self.plans
        dtypes = {plan.compute_dtype for _, plan in plans}
        print_description(
            f"{self.name}: {self.scaling}, schedule {self.schedule.name}",
            self.routes,
            self.scale,
            state_bytes=bytes_of([*self._momenta, *self._velocities]) + masters,
            adamw_bytes=bytes_of(self._trainable_variables, copies=2) + masters,
            plans=plans,
            dtype_reason=dtype_reason(self.compute_dtype, dtypes, xla=self.may_use_xla),
            print_fn=print_fn,
        )

    def adam_rate(self, learning_rate: Tensor) -> Tensor:
        """Return AdamW's rate at this step, beside Muon's."""
        return self._adam_rate(learning_rate, self._iterations)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this optimizer, routes included."""
        config = super().get_config()
        known = SCHEDULES.get(self.schedule.name) == self.schedule
        config |= {name: getattr(self, name) for name in PLAIN_ARGUMENTS}
        config["schedule"] = self.schedule.name if known else self.schedule.to_json()
        config["adam_learning_rate"] = self._adam_rate.to_json(config["learning_rate"])
        return config | self._route_source.to_json(self.routes)

    @classmethod
    def from_config(cls, config: dict, custom_objects: Any = None) -> Self:
        """Return the optimizer that `get_config` describes."""
        config = dict(config)
        rate = config.get("adam_learning_rate")
        if isinstance(rate, dict) and "class_name" in rate:
            config["adam_learning_rate"] = keras.saving.deserialize_keras_object(
                rate, custom_objects=custom_objects
            )
        return super().from_config(config, custom_objects=custom_objects)
