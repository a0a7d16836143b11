"""Muon for matrices and AdamW for the rest: state, groups and plans."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_muon.batching import Batched
from keras_muon.bucket import Bucket
from keras_muon.bucketed_optimizer import BucketedOptimizer
from keras_muon.building import check_constants, check_variables
from keras_muon.freed_memory import keep_freed_memory
from keras_muon.known_buckets import KnownBuckets
from keras_muon.moment_starts import MomentStarts
from keras_muon.plan import Plan
from keras_muon.plan_choice import is_small
from keras_muon.route_source import RouteSource
from keras_muon.routing import Route
from keras_muon.saved_state import read_state, write_state
from keras_muon.schedules import Schedule
from keras_muon.side_by_side import Task, matrices_at_a_time
from keras_muon.stacked_momenta import StackedMomenta
from keras_muon.state import add_state, is_narrow, state_dtype
from keras_muon.steps import step_by_adamw, step_matrices
from keras_muon.torch_steps import writes_in_place

Tensor = Any
Variable = Any


class MatrixOptimizer(BucketedOptimizer):
    """What `Muon` is once its arguments are checked.

    It decides the routes when it is built, holds a state for each variable, and steps
    those that go together.
    """

    schedule: Schedule
    ns_steps: int | None
    compute_dtype: str
    batched: Batched
    _route_source: RouteSource
    _routes: tuple[Route, ...]
    _known_buckets: KnownBuckets
    _moment_starts: MomentStarts

    # What a file said that was loaded before building.
    _steps_before = 0

    def build(self, variables: Sequence[Variable]) -> None:
        """Decide the routes and create the state: one buffer per hidden matrix.

        Args:
            variables: The `keras.Variable`s to update.

        Raises:
            TypeError: If one of them is something else.
            ValueError: If one of them is there twice.
        """
        if self.built:
            return
        check_variables(variables)
        routes = self._route_source.resolve(variables)
        check_constants(self, variables, routes)
        super().build(variables)
        keep_freed_memory()
        object.__setattr__(self, "_routes", tuple(routes))
        object.__setattr__(self, "_known_buckets", KnownBuckets(self))
        views = [route.matrix_view for route in routes if route.rule == "muon"]
        object.__setattr__(self, "_entries", sum(view.entries for view in views))
        self._momenta, self._velocities, self._masters = [], [], []
        for variable, route in zip(variables, routes, strict=True):
            # Keras assigns the "gradient" of such a variable itself (float8 scales).
            kept = not getattr(variable, "overwrite_with_gradient", False)
            adamw = kept and route.rule == "adamw"
            momentum = add_state(self, variable, "momentum") if kept else None
            velocity = add_state(self, variable, "velocity") if adamw else None
            narrow = kept and is_narrow(variable)
            master = add_state(self, variable, "master") if narrow else None
            self._momenta.append(momentum)
            self._velocities.append(velocity)
            self._masters.append(master)
        states = list(map(self.state_of, range(len(routes))))
        starts = MomentStarts(states, self._steps_before)
        object.__setattr__(self, "_moment_starts", starts)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes in the order of the trainable variables; empty until built."""
        return self._routes

    @property
    def trained_variables(self) -> tuple[Variable, ...]:
        """The variables that this optimizer updates, in the order of `routes`."""
        return tuple(self._trainable_variables)

    @property
    def plans(self) -> tuple[tuple[int, Plan], ...]:
        """Per iteration: how many matrices it is for, and how they are computed.

        Empty until built. A plan counts its floating-point operations, per matrix.
        """
        if not self.built:
            return ()
        found = []
        for bucket in self.buckets(range(len(self.routes))):
            if self.routes[bucket[0]].rule != "muon":
                continue
            count = sum(self.routes[index].matrix_view.batch for index in bucket)
            found.append((count, self.bucket_of(bucket).plan))
        return tuple(found)

    def bucket_of(self, indices: Sequence[int]) -> Bucket:
        """Return what is known about hidden matrices that share an iteration.

        Args:
            indices: Indices of their variables.
        """
        return self._known_buckets.bucket(indices)

    def buckets(self, indices: Sequence[int]) -> list[list[int]]:
        """Return the positions that go together."""
        return self._known_buckets.positions(indices)

    def task_of(self, indices: Sequence[int], run: Callable[[], None]) -> Task:
        """Return the update of a bucket; beside a large matrix others go, on torch."""
        route = self.routes[indices[0]]
        alone = route.rule == "muon" and len(indices) == 1 and self.batched == "auto"
        if not alone or not writes_in_place(self, indices):
            return Task(run)
        view, weight = route.matrix_view, self._trainable_variables[indices[0]].value
        if is_small(view.fan_in, view.fan_out) or weight.device.type != "cpu":
            return Task(run)
        at_a_time = matrices_at_a_time(view.entries, self._entries)
        return Task(run, at_a_time, self.bucket_of(indices).plan.flops * view.batch)

    def update_bucket(
        self,
        indices: Sequence[int],
        gradients: Sequence[Tensor],
        variables: Sequence[Variable],
        learning_rate: Tensor,
    ) -> None:
        """Update hidden matrices of one shape together, or AdamW's variables."""
        dtype = state_dtype(self._trainable_variables[indices[0]])
        given = {gradient.dtype for gradient in gradients}
        # Casts that change nothing take longer than to see so.
        if {keras.backend.standardize_dtype(each) for each in given} != {dtype}:
            gradients = [ops.cast(gradient, dtype) for gradient in gradients]
        rate = ops.cast(learning_rate, dtype)
        if self.routes[indices[0]].rule == "adamw":
            step_by_adamw(self, indices, gradients, variables, rate)
            return
        step_matrices(self, indices, gradients, variables, rate)

    def state_of(self, index: int) -> list[Variable]:
        """Return the state of a variable: momentum, and AdamW's second moment."""
        state = (self._momenta[index], self._velocities[index])
        return [variable for variable in state if variable is not None]

    def stacked_momenta(self, indices: Sequence[int]) -> StackedMomenta | None:
        """Return the momenta of a bucket as one tensor, where they are, on torch.

        Args:
            indices: Indices of the bucket's variables.
        """
        return self._known_buckets.stacked_momenta(indices)

    def moments_start(self, index: int) -> int:
        """Return the count of steps before AdamW's moments of a variable began."""
        return self._moment_starts.of(index)

    @property
    def late_variables(self) -> tuple[Variable, ...]:
        """What AdamW updates whose moments began after the optimizer's first step."""
        late = self._moment_starts.late()
        return tuple(self._trainable_variables[index] for index in late)

    def adam_step(self, index: int, dtype: str) -> Tensor:
        """Return the number of this step for AdamW's moments of a variable, from 1."""
        return ops.cast(self.iterations + (1 - self.moments_start(index)), dtype)

    def master_of(self, index: int) -> Variable | None:
        """Return the float32 copy of a float16 or bfloat16 variable."""
        return self._masters[index]

    def decays(self, index: int) -> bool:
        """Whether weight decay applies to a variable."""
        return self._use_weight_decay(self._trainable_variables[index])

    @property
    def micro_step(self) -> Variable:
        """Count of calls, of which several make a step while gradients accumulate."""
        return self._iterations

    def save_own_variables(self, store: Any) -> None:
        """Write the state by name."""
        starts = self._moment_starts.entries() if self.built else []
        write_state([*self.variables, *starts], store)

    def load_own_variables(self, store: Any) -> None:
        """Restore the state that a file has for these variables."""
        if not self.built:
            read_state(self.name, self.variables, store)
            object.__setattr__(self, "_steps_before", int(self.iterations))
        elif self._moment_starts.restore(self, store):
            object.__setattr__(self, "_known_buckets", KnownBuckets(self))
