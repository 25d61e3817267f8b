"""Entries that stay move to the front: the programs of layers with a window or a pattern of blocks.

`see` finds, once for all layers of a kind, what later queries can still see; `compact` then moves
the entries of each layer. Both know the pattern, so that the host does not.
"""

import torch
from torch import Tensor, nn

from lcc.ir.plan import Sparse
from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.policies.base import top_mask
from lcc.passes.rotation import Rotation, rotate


class Turn(nn.Module):
    """Turns keys back that move to a lower slot; nothing where there is no rotation."""

    def __init__(self, rotation: Rotation | None = None) -> None:
        """`rotation` is None under absolute positions and for layers without rotary embedding."""
        super().__init__()
        self.interleaved = rotation is not None and rotation.interleaved
        self.cos: Tensor | None
        self.sin: Tensor | None
        self.register_buffer("cos", None if rotation is None else rotation.cos)
        self.register_buffer("sin", None if rotation is None else rotation.sin)

    def forward(self, key: Tensor, moved: Tensor) -> Tensor:
        """Rotate keys [Hkv, n, D] back by `moved` [Hkv, n] slots, each at least 0.

        A key that does not move is untouched, bit for bit.
        """
        return self._turned(key, moved, -1.0)

    def ahead(self, key: Tensor, moved: Tensor) -> Tensor:
        """Rotate keys [H, n, D] forward by `moved` [H, n] slots, each at least 0."""
        return self._turned(key, moved, 1.0)

    def _turned(self, key: Tensor, moved: Tensor, sign: float) -> Tensor:
        if self.cos is None or self.sin is None:
            return key
        shape = (*moved.shape, self.cos.shape[1])
        cos = self.cos.index_select(0, moved.flatten()).reshape(shape)
        sin = self.sin.index_select(0, moved.flatten()).reshape(shape)
        turned = rotate(key, cos, sign * sin, self.interleaved)
        return torch.where((moved == 0)[:, :, None], key, turned)


def gather_rows(x: Tensor, slots: Tensor) -> Tensor:
    """[Hkv, n, D]: the rows of x [1, Hkv, S, D] in these slots [Hkv, n] int64 of each KV head."""
    heads, count = slots.shape
    # Whole rows of [Hkv * S, D]: a gather along S would address every single number.
    rows = (slots + x.shape[2] * torch.arange(heads)[:, None]).flatten()
    return x.reshape(-1, x.shape[3]).index_select(0, rows).reshape(heads, count, x.shape[3])


class See(nn.Module):
    """Which entries of one kind of layer the last query, or any later one, can see.

    token_position  [H, S] int64, of the entries that were kept; H KV heads of the layer with most
    used, kept      [1] int32, entries held, and those of them that the last compaction left
    tokens_read     [1] int64, tokens of the text read so far

    gives
    stays               [H, S] int64, slots of what stays, ascending, in the first places of each
                        head; in the other places their own slot
    token_position_out  [H, S] int64
    seen                [1] int32, how many stay: the most that a head sees. One that sees fewer
                        keeps the newest of the others, too
    """

    def __init__(self, kind: Sparse, lag: int = 0) -> None:
        """`lag`: newest tokens that may be read once more; what they see stays."""
        super().__init__()
        self.kind, self.lag = kind, lag

    def forward(
        self, token_position: Tensor, used: Tensor, kept: Tensor, tokens_read: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        heads, slots = token_position.shape
        slot = torch.arange(slots)
        position = torch.where(slot < kept, token_position, slot - used + tokens_read)
        head = torch.arange(heads)[:, None]
        query = (tokens_read - max(1, self.lag)).clamp(min=0)
        seen = self.kind.sees(query, position, head) & (slot < used)
        count = seen.sum(1, keepdim=True).amax(0)  # [1]
        rank = torch.where(seen, slot + slots, slot).float()
        rank = torch.where(slot < used, rank, -1.0)
        stays = top_mask(rank, count, slots)
        # Slots counted from the end, so that the largest come first and an empty place is 0.
        from_end = torch.where(stays, slots - slot, 0)
        ordered = slots - torch.topk(from_end, slots, dim=1).values
        places = torch.where(slot < count, ordered, slot)
        return places, position.gather(1, places), count.to(torch.int32)


class Compact(nn.Module):
    """Move the entries that stay to the front.

    key, value   [1, Hkv, S, D]  float32; keys rotated
    stays        [H, S]          int64, from `See`; H >= Hkv

    gives key_out and value_out, of the same shape; keys turned from the old slot's angle to the new
    one's, where there is a rotation and positions are contiguous
    """

    def __init__(self, rotation: Rotation | None = None) -> None:
        super().__init__()
        self.turn = Turn(rotation)

    def forward(self, key: Tensor, value: Tensor, stays: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        slots = stays[: key.shape[1]]
        moved = slots - torch.arange(key.shape[2])
        return self.turn(gather_rows(key, slots), moved)[None], gather_rows(value, slots)[None]


def see_program(name: str, kind: Sparse, *, heads: int, slots: int, lag: int = 0) -> Program:
    """Export `See`."""
    held = torch.arange(slots).expand(heads, -1).contiguous()
    one = torch.zeros(1, dtype=torch.int32)
    inputs = [
        Input(Port("token_position", Role.TOKEN_POSITION), held),
        Input(Port("used", Role.COUNTER), one),
        Input(Port("kept", Role.COUNTER), one.clone()),
        Input(Port("tokens_read", Role.COUNTER), one.long()),
    ]
    outputs = [
        Port("stays", Role.KEPT),
        Port("token_position_out", Role.TOKEN_POSITION),
        Port("seen", Role.COUNTER),
    ]
    return export(See(kind, lag), (name,), inputs, outputs)


def compact_program(
    name: str, compact: Compact, *, kv_heads: int, head_size: int, heads: int, slots: int
) -> Program:
    """Export `Compact`; `heads`: rows of `stays`."""
    cache = torch.zeros(1, kv_heads, slots, head_size)
    inputs = [
        Input(Port("key", Role.KEY), cache),
        Input(Port("value", Role.VALUE), cache.clone()),
        Input(Port("stays", Role.KEPT), torch.arange(slots).expand(heads, -1).contiguous()),
    ]
    outputs = [Port("key_out", Role.KEY), Port("value_out", Role.VALUE)]
    return export(compact, (name,), inputs, outputs)
