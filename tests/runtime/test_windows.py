"""What a kind of layers keeps about its entries."""

from lcc.ir.plan import BlockSparse
from lcc.runtime.kv_cache import ALIGNMENT
from lcc.runtime.windows import Window


def test_places_lie_where_kernels_can_read_them() -> None:
    windows = [Window(1, BlockSparse(), slots=7, heads=heads) for heads in range(1, 20)]
    assert not any(window.places.ctypes.data % ALIGNMENT for window in windows)
