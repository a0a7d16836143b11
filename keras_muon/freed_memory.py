"""Memory that one step frees and the next one takes again.

The C library of Linux returns freed memory to the system beyond twice the largest block
that was ever freed, and pages that come back are cleared one by one. Temporaries of a
step are many blocks of equal size, so that all of them would go and come at each step:
a fifth of its time on torch, which asks the C library for each tensor, where matrices
are small. Once a larger block was freed, as many models do by themselves, they stay.

Source: mallopt(3), M_MMAP_THRESHOLD, "dynamic adjustment".
"""

import numpy as np

# Larger blocks are not counted: DEFAULT_MMAP_THRESHOLD_MAX is 32 MiB, header included.
LARGEST_COUNTED = 31 * 2**20


def keep_freed_memory() -> None:
    """Free a block so large that what steps free stays with this process.

    No page of the block is touched, so that it takes no memory, and a microsecond. More
    is kept than before only of what was in use at a time, 62 MiB at most. Where the
    environment sets the limits, or another library allocates, nothing changes.
    """
    np.empty(LARGEST_COUNTED, dtype=np.uint8)
