"""Weights that are read when something is computed with them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcc.ir import lazy_tensor
from lcc.ir.lazy_tensor import LazyTensor, materialize, whole
from lcc.ir.stand_ins import stand_ins
from lcc.ir.weight_reads import weights_kept

aten = torch.ops.aten


class Counted:
    """A tensor, and how many of its rows were read."""

    def __init__(self, value: Tensor, name: str = "weight") -> None:
        self.value, self.rows = value, 0
        self.lazy = LazyTensor(value.shape, value.dtype, self.read, name)

    def read(self, start: int, stop: int) -> Tensor:
        self.rows += stop - start
        return self.value[start:stop] if self.value.dim() else self.value


@pytest.fixture
def counted() -> Counted:
    return Counted(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)).bfloat16())


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.float(),
        lambda x: x.t(),
        lambda x: x[2:5],
        lambda x: x[3],
        lambda x: torch.stack([x, x]),
        lambda x: torch.cat([x, x.float()], dim=1),
        lambda x: x.chunk(3)[1],
        lambda x: x.unbind(1)[2],
        lambda x: x.reshape(6, 2, 8).permute(1, 0, 2),
        lambda x: x.float().t().unsqueeze(0).double(),
    ],
)
def test_what_a_loader_does_is_done_when_it_is_read(counted: Counted, change) -> None:  # type: ignore[no-untyped-def]
    made, wanted = change(counted.lazy), change(counted.value)
    assert isinstance(made, LazyTensor)
    assert (made.shape, made.dtype, counted.rows) == (wanted.shape, wanted.dtype, 0)
    assert torch.equal(made.whole(), wanted)
    assert torch.equal(torch.cat(list(made.blocks())), wanted)
    assert torch.equal(made.rows(0, 1), wanted[:1])


def test_the_same_change_of_the_same_weight_has_the_same_key(counted: Counted) -> None:
    weight, other = counted.lazy, Counted(counted.value, "other").lazy
    assert weight.float().t().key == weight.detach().float().t().key
    keys = {weight.key, weight.t().key, weight.float().key, weight[1:].key, weight[2:].key}
    keys |= {*(part.key for part in weight.chunk(2)), other.key, other.float().key}
    assert len(keys) == 9


def test_products_and_lookups_read_no_more_than_they_need(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_tensor, "BLOCK_BYTES", 100)  # three rows in float32
    weight, wanted = counted.lazy.float(), counted.value.float()
    draw = torch.Generator().manual_seed(2)
    x, bias = torch.randn(1, 5, 8, generator=draw), torch.randn(12, generator=draw)
    tokens = torch.tensor([[7, 2, 7]])
    assert torch.equal(nn.functional.embedding(tokens, weight), wanted[tokens])
    assert counted.rows == 2
    torch.testing.assert_close(nn.functional.linear(x, weight), nn.functional.linear(x, wanted))
    torch.testing.assert_close(
        nn.functional.linear(x, weight, bias), nn.functional.linear(x, wanted, bias)
    )
    assert counted.rows == 2 + 12 + 12
    assert [len(each) for each in weight.blocks()] == [3] * 4


def test_what_is_kept_is_read_once(counted: Counted) -> None:
    weight = counted.lazy.float()
    with weights_kept(weight.nbytes):
        for _ in range(3):
            assert torch.equal(weight + 1, counted.value.float() + 1)
        assert counted.rows == 12
    assert torch.equal(whole(weight), counted.value.float())
    assert counted.rows == 24
    with weights_kept(weight.nbytes - 1):  # no room for it
        assert torch.equal(weight + 1, weight.detach() + 1)
    assert counted.rows == 48


def test_tied_weights_stay_one(counted: Counted) -> None:
    first, second = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False)
    module = nn.Sequential(first, second)
    for each in module:
        each._parameters["weight"] = nn.Parameter(counted.lazy.float(), requires_grad=False)
    with stand_ins(module) as made:
        assert type(first.weight) is nn.Parameter
        assert first.weight is second.weight
        assert isinstance(made.meant(first.weight), LazyTensor)
    assert isinstance(first.weight, LazyTensor)
    materialize(module)
    assert first.weight is second.weight
    assert torch.equal(first.weight, counted.value.float())
    assert not first.weight.requires_grad


def test_large_weights_are_not_read_to_trace_a_graph(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcc.ir.stand_ins.SMALL_BYTES", 0)
    module = nn.Linear(8, 12, bias=False)
    module._parameters["weight"] = nn.Parameter(counted.lazy.float(), requires_grad=False)
    with stand_ins(module) as made:
        exported = torch.export.export(module, (torch.zeros(3, 8),))
        made.put_back(exported)
    assert counted.rows == 0
    x = torch.ones(3, 8)
    assert torch.equal(exported.module(check_guards=False)(x), x @ counted.value.float().t())


def test_safetensors_are_read_row_by_row(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from lcc.sources.stored import safetensors_of

    draw = torch.Generator().manual_seed(1)
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    page = {f"of {kind}": torch.randn(5, 2, 3, generator=draw).to(kind) for kind in kinds}
    page |= {"number": torch.tensor(2.5), "nothing": torch.zeros(0, 4)}
    save_file(page, tmp_path / "m.safetensors", metadata={"format": "pt"})
    found = safetensors_of(tmp_path / "m.safetensors")
    assert found.keys() == page.keys()
    for name, tensor in page.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].whole(), tensor)
    assert torch.equal(found["of torch.bfloat16"].rows(2, 4), page["of torch.bfloat16"][2:4])
