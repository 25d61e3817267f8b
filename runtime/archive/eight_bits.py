"""Keys and values of a block of archived rows in 8 bits: each channel has its own range.

The channels of a key lie around values of their own, some of them far from zero, and differ little
from token to token. Between a channel's least and its largest number in a block are 255 steps.
"""

import numpy as np

LARGEST = 127


def quantize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, and what takes them back to the rows of a block; `restore` takes both.

    rows        [n, H, D]   float32, n >= 1

    returns     [n, H, D]   int8, from -127 to 127
                [2, H, D]   float32: the middle of each channel's range, and what a step is worth.
                            The error of a number is at most half a step
    """
    least, most = rows.min(0), rows.max(0)
    middle, step = least / 2 + most / 2, most / (2 * LARGEST) - least / (2 * LARGEST)
    numbers = np.rint((rows - middle) / np.where(step == 0, 1, step))
    return numbers.clip(-LARGEST, LARGEST).astype(np.int8), np.stack((middle, step))


def restore(numbers: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """[m, H, D] float32: any rows of the block that `quantize` was given, but for its error."""
    middle, step = ranges
    found: np.ndarray = numbers * step + middle
    return found
