"""A Keras optimizer that updates variables in groups instead of one by one.

Keras calls `update_step` once per variable. Two hooks of the base class see all
variables at once; this class overrides them, one for TensorFlow (inside the merge
call of its distribution strategies) and one for JAX and torch. It also mends what
keeps the base class of Keras 3.15 from working everywhere.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_muon.find_model import may_compile_with_xla, refuse_another_model
from keras_muon.gradients import prepared
from keras_muon.opaque_values import shared_opaque_values
from keras_muon.side_by_side import Task, side_by_side
from keras_muon.state import add_state, is_narrow
from keras_muon.waiting import Waiting, once_updated

Tensor = Any
Variable = Any


class BucketedOptimizer(keras.optimizers.Optimizer):
    """Base class: `buckets` says what goes together, `update_bucket` does it."""

    may_use_xla = True
    """Whether XLA may compile the steps, as is known once the optimizer is built."""

    _known: frozenset[int] = frozenset()

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the state.

        Args:
            variables: The `keras.Variable`s to update.
        """
        super().build(variables)
        object.__setattr__(self, "_known", frozenset(map(id, variables)))
        # Decided once, not at every step of eager torch.
        object.__setattr__(self, "may_use_xla", may_compile_with_xla(variables))

    def buckets(self, indices: Sequence[int]) -> list[list[int]]:
        """Return the positions in `indices` of the variables that go together.

        Args:
            indices: Indices of trainable variables that have a gradient.

        Returns:
            Lists of positions that cover each one once.
        """
        raise NotImplementedError

    def update_bucket(
        self,
        indices: Sequence[int],
        gradients: Sequence[Tensor],
        variables: Sequence[Variable],
        learning_rate: Tensor,
    ) -> None:
        """Update the variables of one bucket.

        Args:
            indices: Indices of the bucket's variables.
            gradients: Their gradients.
            variables: What to assign to; on TensorFlow a replica's own variables.
            learning_rate: The rate of this step, before decay and scaling.
        """
        raise NotImplementedError

    def task_of(self, indices: Sequence[int], run: Callable[[], None]) -> Task:
        """Return the update of a bucket, and whether others may go beside it.

        Args:
            indices: Indices of the bucket's variables.
            run: What updates them.
        """
        return Task(run)

    def update_step(
        self, gradient: Tensor, variable: Variable, learning_rate: Tensor
    ) -> None:
        """Update one variable: a bucket of its own."""
        index = self._get_variable_index(variable)
        with _surroundings():
            self.update_bucket([index], [gradient], [variable], learning_rate)

    @property
    def is_stateless(self) -> bool:
        """Whether this step must leave the values of all variables alone.

        As in `stateless_apply`, which is such a `keras.StatelessScope`, too.
        """
        # A scope knows the one around it.
        with keras.StatelessScope(initialize_variables=False) as scope:
            return scope.original_scope is not None

    def apply(self, grads: Sequence[Tensor], trainable_variables: Any = None) -> Any:
        """Apply gradients, checked, dense and in float32 or better."""
        variables = trainable_variables
        if variables is not None:
            variables = trainable_variables = list(trainable_variables)
            self._refuse_unknown(variables)
        elif self.built:
            variables = self._trainable_variables
        return super().apply(prepared(list(grads), variables), trainable_variables)

    @property
    def variables(self) -> list[Variable]:
        """The optimizer's own variables.

        On JAX a model reads them before it takes their values out to train with. That
        is the last moment to refuse a model that they do not belong to without loss.
        """
        if self.built and keras.backend.backend() == "jax":
            refuse_another_model(self, self._trainable_variables)
        return super().variables

    def add_variable_from_reference(
        self, reference_variable: Variable, name: Any = None, initializer: Any = "zeros"
    ) -> Variable:
        """Create a variable like another; sums of gradients get at least float32."""
        if name == "gradient_accumulator" and is_narrow(reference_variable):
            return add_state(self, reference_variable, name)
        return super().add_variable_from_reference(
            reference_variable, name=name, initializer=initializer
        )

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Write the moving averages into the model at the end of `fit`.

        On JAX the base class lets a weight and its average share one array, and the
        next `fit` fails because it donates the same buffer twice.
        """
        super().finalize_variable_values(var_list)
        if self.use_ema and keras.backend.backend() == "jax":
            for variable in var_list:
                variable.assign(keras.ops.copy(variable.value))

    def _refuse_unknown(self, variables: Sequence[Variable]) -> None:
        if not self.built or set(map(id, variables)) <= self._known:
            return
        for variable in variables:
            try:
                self._get_variable_index(variable)
            except KeyError:
                path = getattr(variable, "path", type(variable).__name__)
                raise ValueError(
                    f"The optimizer was built for other variables than {path!r}. Its "
                    "state and routes belong to them: give each model an optimizer of "
                    "its own, such as Muon.for_model(model), and a new one after "
                    "layers were thawed."
                ) from None

    def _apply_weight_decay(self, variables: Sequence[Variable]) -> None:
        """Do nothing: `update_bucket` decays each variable at its own rate."""

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        """Hook of JAX and torch. TensorFlow reduces over replicas first."""
        if keras.backend.backend() == "tensorflow":
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        indices = [self._get_variable_index(v) for v in trainable_variables]
        tasks, waiting = [], Waiting(trainable_variables)
        for bucket in self.buckets(indices):
            variables = [trainable_variables[i] for i in bucket]
            chosen = [indices[i] for i in bucket]
            given = [grads[i] for i in bucket]
            before = waiting.awaited_by(variables)
            arguments = (chosen, given, variables, learning_rate, before)
            update = functools.partial(self._update_after, *arguments)
            tasks.append(self.task_of(chosen, update))
        with _surroundings():
            side_by_side(tasks)

    def _distributed_tf_update_step(
        self, distribution: Any, grads_and_vars: Any, learning_rate: Any
    ) -> None:
        """Hook of TensorFlow: one update context per bucket.

        `extended.update` calls the function on every replica with that replica's
        gradients and its copy of the first variable; in its context the others
        resolve to the same replica's copies.
        """
        indices = [self._get_variable_index(v) for _, v in grads_and_vars]
        waiting = Waiting([variable for _, variable in grads_and_vars])
        for bucket in self.buckets(indices):
            variables = [grads_and_vars[i][1] for i in bucket]
            before = waiting.awaited_by(variables)
            first, *others = variables

            def update(
                first: Any,
                gradients: Any,
                rate: Any,
                others: Any = others,
                bucket: Any = bucket,
                before: Any = before,
            ) -> None:
                chosen = [indices[i] for i in bucket]
                self._update_after(chosen, gradients, [first, *others], rate, before)

            gradients = [grads_and_vars[i][0] for i in bucket]
            distribution.extended.update(
                first, update, args=(gradients, learning_rate), group=False
            )

    def _update_after(
        self,
        indices: Sequence[int],
        gradients: Sequence[Tensor],
        variables: Sequence[Variable],
        learning_rate: Tensor,
        before: Sequence[Variable] | None,
    ) -> None:
        with once_updated(before, gradients, xla=self.may_use_xla) as gradients:
            self.update_bucket(indices, gradients, variables, learning_rate)


def _surroundings() -> contextlib.AbstractContextManager:
    """Return what steps are taken in: no gradients on torch, shared numbers on JAX."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    if keras.backend.backend() == "jax":
        return shared_opaque_values()
    return contextlib.nullcontext()
