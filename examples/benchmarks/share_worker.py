"""The process of one backend, for `newton_schulz_share.py`."""

import collections
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from carriers import Carrier, carrier
from cases import SEED
from contenders import OURS, built_optimizer
from interleaving import interleaved
from workers import Options, answered

# A product is repeated on other inputs within a call until it has this many operations,
# so that the call itself takes no time; but not more often than this.
ENOUGH_FLOPS, MOST_REPEATS = 5e8, 16

# Threads begin once in a step: each has as many matrices as of 4 blocks of GPT-2 small.
MATRICES_OF_A_THREAD = 8


def measured(backend: str, options: Options) -> dict[str, Any]:
    """Return seconds of every plan's iteration, and of its products.

    Args:
        backend: The one that Keras runs on.
        options: `shapes`, `rounds`, `turn` and `jit`.
    """
    given = (OURS, backend, options["shapes"], options["jit"])
    carrying = carrier(backend, options["jit"])
    works = _works(built_optimizer(*given)[0])
    return {"plans": [_timed(*work, carrying, options) for work in works.items()]}


def _works(optimizer: Any) -> dict[tuple[Any, int, int], int]:
    """Return how many matrices each plan is for, in stacks and side by side."""
    counts: collections.Counter = collections.Counter()
    buckets = optimizer.buckets(range(len(optimizer.routes)))
    for bucket, (matrices, plan) in zip(buckets, optimizer.plans, strict=True):
        together = matrices if plan.loop == "none" else 1
        at_a_time = optimizer.task_of(bucket, lambda: None).at_a_time
        counts[plan, together, at_a_time] += matrices
    return dict(counts)


def _timed(
    work: tuple[Any, int, int], matrices: int, carrying: Carrier, options: Options
) -> dict[str, Any]:
    plan, together, at_a_time = work
    counts: collections.Counter = collections.Counter()
    for product in plan.products:
        dtype = plan.compute_dtype if product.itemsize == _itemsize(plan) else "float32"
        extents = (product.rows, product.inner, product.columns)
        counts[extents, dtype] += product.share
    iteration, iterations = _iteration(plan, together, at_a_time, carrying)
    functions = {"iteration": iteration}
    repeats = {}
    for kind in counts:
        functions[str(kind)], repeats[kind] = _product(*kind, together, carrying)
    times = interleaved(functions, options["rounds"], options["turn"])
    of_products = [
        sum(count * times[str(k)][i] / repeats[k] for k, count in counts.items())
        for i in range(options["rounds"])
    ]
    shape = f"{plan.fan_in} x {plan.fan_out}"
    return {
        "words": [shape, str(together * at_a_time), plan.compute_dtype],
        "matrices": matrices,
        "calls": matrices // together,
        "seconds": [seconds / iterations for seconds in times["iteration"]],
        "seconds of products": of_products,
    }


def _itemsize(plan: Any) -> int:
    from keras_muon.products import ITEMSIZES

    return ITEMSIZES[plan.compute_dtype]


def _iteration(
    plan: Any, together: int, at_a_time: int, carrying: Carrier
) -> tuple[Callable[[], None], int]:
    """Return a function of several iterations, and of how many."""
    from keras import ops

    from keras_muon.freed_memory import keep_freed_memory
    from keras_muon.planning import polar_factor
    from keras_muon.side_by_side import Task, side_by_side

    # As an optimizer does when it is built.
    keep_freed_memory()

    function = carrying.compiled(lambda x: polar_factor(x, plan, overwrites=True))
    x = _random(together, plan.fan_in, plan.fan_out, "float32", 0)
    count = at_a_time * MATRICES_OF_A_THREAD if at_a_time > 1 else 1
    # Torch writes into them, as into updates of the optimizer: each turn begins with
    # what the one before has left.
    runs = [functools.partial(function, ops.copy(x)) for _ in range(count)]
    if count == 1:
        return (lambda: carrying.wait(runs[0]())), 1
    tasks = [Task(run, at_a_time, plan.flops) for run in runs]
    return (lambda: side_by_side(tasks)), count


def _product(
    extents: tuple[int, int, int], dtype: str, together: int, carrying: Carrier
) -> tuple[Callable[[], None], int]:
    """Return a function of several such products, and of how many."""
    from keras import ops

    rows, inner, columns = extents
    enough = math.ceil(ENOUGH_FLOPS / (2.0 * math.prod(extents) * together))
    repeats = min(max(1, enough), MOST_REPEATS)
    pairs = [
        (
            _random(together, rows, inner, dtype, 2 * i + 1),
            _random(together, inner, columns, dtype, 2 * i + 2),
        )
        for i in range(repeats)
    ]
    function = carrying.compiled(lambda pairs: [ops.matmul(a, b) for a, b in pairs])
    return (lambda: carrying.wait(function(pairs))), repeats


@functools.cache
def _random(together: int, rows: int, columns: int, dtype: str, number: int) -> Any:
    from keras import ops

    shape = (rows, columns) if together == 1 else (together, rows, columns)
    generator = np.random.default_rng([SEED, number, *shape])
    return ops.convert_to_tensor(generator.standard_normal(shape, "float32"), dtype)


if __name__ == "__main__":
    answered(measured)
