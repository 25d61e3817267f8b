"""Smoothing over neighbouring slots, so that whole spans of text survive rather than single tokens.

Slots are in token order, so neighbouring slots are the nearest tokens that are still there.
"""

import torch
from torch import Tensor
from torch.nn import functional


def span_max(x: Tensor, valid: Tensor, span: int) -> Tensor:
    """The maximum over `span` slots around each one, as far as they are valid.

    x         [Hkv, S]  float32
    valid     [S] or [Hkv, S]  bool
    span      odd; 1 changes nothing
    returns   [Hkv, S]
    """
    if span == 1:
        return x
    x = torch.where(valid, x, torch.finfo(x.dtype).min)
    # In two dimensions because PyTorch 2.13 exports max_pool1d for one length only.
    pooled = functional.max_pool2d(x[None, None], (1, span), stride=1, padding=(0, span // 2))
    return pooled[0, 0]


def span_mean(x: Tensor, valid: Tensor, span: int) -> Tensor:
    """The mean over `span` slots around each one, counting only the valid ones.

    x         [Hkv, S]  float32
    valid     [Hkv, S]  bool
    span      odd; 1 changes nothing
    returns   [Hkv, S]; where no slot of the span is valid, 0
    """
    if span == 1:
        return x

    def share(y: Tensor) -> Tensor:
        return functional.avg_pool1d(y[:, None], span, stride=1, padding=span // 2)[:, 0]

    return share(torch.where(valid, x, 0.0)) / share(valid.float()).clamp(min=0.5 / span)


def sentence_index(sentence: Tensor) -> Tensor:
    """Number the sentences of each head 0, 1, ... in slot order.

    sentence  [Hkv, S]  float32, equal in neighbouring slots of one sentence, else different
    returns   [Hkv, S]  int64; in empty slots anything below S
    """
    begins = sentence[:, 1:] != sentence[:, :-1]
    return functional.pad(begins.long(), (1, 0)).cumsum(1)


def sentence_sum(x: Tensor, index: Tensor) -> Tensor:
    """The sum over each entry's sentence, given to all of its entries.

    x         [Hkv, S]  float32, 0 in empty slots
    index     [Hkv, S]  int64, from `sentence_index`
    returns   [Hkv, S]
    """
    return torch.zeros_like(x).scatter_add(1, index, x).gather(1, index)
