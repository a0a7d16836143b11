"""What goes together in a step, found out once and not in every step of eager torch."""

import math
import weakref
from collections.abc import Sequence
from typing import Any

import keras

from keras_muon.batching import stacks
from keras_muon.bucket import Bucket
from keras_muon.plan import Plan
from keras_muon.plan_choice import LARGEST_STACKED_ON_CPU
from keras_muon.planning import planned
from keras_muon.stacked_momenta import StackedMomenta
from keras_muon.state import state_dtype

# Of which variables have a gradient there may be as many cases as steps.
MOST_GROUPINGS = 64


class KnownBuckets:
    """The buckets of an optimizer that is built.

    Args:
        optimizer: The `Muon` that holds settings, routes and state.
    """

    def __init__(self, optimizer: Any):
        # An optimizer and its memory go with their last name, without a collector. No
        # proxy: torch.compile cannot look through it.
        self._reference = weakref.ref(optimizer)
        self._groupings: dict[tuple[int, ...], list[list[int]]] = {}
        self._buckets: dict[tuple[int, ...], Bucket] = {}
        self._plans: dict[tuple[tuple[int, ...], str], Plan] = {}
        self._momenta: dict[tuple[int, ...], StackedMomenta | None] = {}

    def positions(self, indices: Sequence[int]) -> list[list[int]]:
        """Return the positions in `indices` of what goes together.

        Args:
            indices: Indices of trainable variables that have a gradient.
        """
        key = tuple(indices)
        if key not in self._groupings:
            if len(self._groupings) >= MOST_GROUPINGS:
                self._groupings.clear()
                self._buckets.clear()
            self._groupings[key] = self._grouped(indices)
        return self._groupings[key]

    def bucket(self, indices: Sequence[int]) -> Bucket:
        """Return what is known about hidden matrices that share an iteration.

        Args:
            indices: Indices of their variables.
        """
        key = tuple(indices)
        if key not in self._buckets:
            self._buckets[key] = self._planned(indices)
        return self._buckets[key]

    def stacked_momenta(self, indices: Sequence[int]) -> StackedMomenta | None:
        """Return the momenta of a bucket as one tensor, on torch.

        Args:
            indices: Indices of the bucket's variables.

        Returns:
            None where they are no stack: a part of a bucket, kernels that follow each
            other or cannot be parts, in inference mode and while torch compiles.
        """
        import torch

        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return None
        if not self._momenta:
            self._stack_all()
        key = tuple(indices)
        momenta = self._momenta.get(key)
        if momenta is not None and not momenta.holds():
            momenta = self._momenta[key] = self._stacked(key)
        return momenta

    @property
    def _optimizer(self) -> Any:
        return self._reference()

    def _grouped(self, indices: Sequence[int]) -> list[list[int]]:
        optimizer = self._optimizer
        rules = [optimizer.routes[index].rule for index in indices]
        matrices = [i for i, rule in enumerate(rules) if rule == "muon"]
        groups = stacks(
            [optimizer.routes[indices[i]].matrix_view for i in matrices],
            [self._state_dtype(indices[i]) for i in matrices],
            optimizer.batched,
            xla=optimizer.may_use_xla,
        )
        others: dict[Any, list[int]] = {}
        for i, rule in enumerate(rules):
            if rule == "adamw":
                variable = optimizer.trained_variables[indices[i]]
                together = optimizer.batched and _goes_with_others(variable)
                kind = (str(variable.dtype), optimizer.moments_start(indices[i]))
                others.setdefault(kind if together else i, []).append(i)
        return [[matrices[i] for i in g] for g in groups] + list(others.values())

    def _planned(self, indices: Sequence[int]) -> Bucket:
        optimizer = self._optimizer
        views = [optimizer.routes[index].matrix_view for index in indices]
        count = sum(view.batch for view in views)
        fans = (views[0].fan_in, views[0].fan_out)
        shape = (count, *fans) if count > 1 else fans
        dtype = self._state_dtype(indices[0])
        # Buckets of one shape share a plan: a deep model has many.
        if (shape, dtype) not in self._plans:
            self._plans[shape, dtype] = planned(
                shape,
                optimizer.schedule,
                optimizer.ns_steps,
                dtype,
                optimizer.compute_dtype,
                xla=optimizer.may_use_xla,
            )
        return Bucket(views, self._plans[shape, dtype])

    def _stack_all(self) -> None:
        """Stack the momenta of each whole bucket, where that is possible."""
        count = len(self._optimizer.routes)
        stepped = [i for i in range(count) if self._optimizer.state_of(i)]
        for positions in self.positions(stepped):
            whole = tuple(stepped[position] for position in positions)
            self._momenta[whole] = self._stacked(whole)

    def _stacked(self, indices: Sequence[int]) -> StackedMomenta | None:
        rule = self._optimizer.routes[indices[0]].rule
        if rule != "muon" or len(indices) == 1:
            return None
        bucket = self.bucket(indices)
        if bucket.plan.loop != "none":
            return None
        momenta = [self._optimizer.state_of(index)[0] for index in indices]
        return StackedMomenta.of(momenta, bucket.turned)

    def _state_dtype(self, index: int) -> str:
        return state_dtype(self._optimizer.trained_variables[index])


def _goes_with_others(variable: Any) -> bool:
    """Whether AdamW steps a variable together with others of its dtype.

    In a graph large ones wait for each other, to take less memory.
    """
    small = math.prod(variable.shape) <= LARGEST_STACKED_ON_CPU
    return small or keras.backend.backend() == "torch"
