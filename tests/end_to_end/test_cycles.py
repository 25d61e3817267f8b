"""Whole texts through session, programs and policies: reference and ONNX Runtime against loops."""

import dataclasses
import functools
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

import lcc.runtime
from lcc.capture.export import capture
from lcc.compile import compile_model, exact_of, manifest_of
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.ir.plan import BlockSparse, Full, parse_plan
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import make_policy, options_in_force
from lcc.passes.specialize import Subject, specialize
from lcc.runtime.model import Model
from lcc.runtime.session import Session
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.sources.heads import RetainingHeads, load_heads_for, save_heads
from lcc.sources.text_facts import sentence_ends, text_facts
from lcc.targets.reference import ReferenceEngine
from lcc.testing.oracles import OracleCache, retaining_score, sees
from lcc.testing.tiny import random_heads, save_tiny, tiny_model

SENTENCE_ENDS = {ord(c) for c in ".!?\n"}
DECAY = {"h2o": 1.0}
PRIME = 2**31 - 1


def drawn(layer: int, head: int, token: int) -> float:
    """What policy `random` draws for an entry, in whole numbers of any size."""
    mixed = (token + (1009 * layer + head) * 104729) % PRIME
    for factor, summand in ((48271, 11), (69621, 1013904223), (39373, 12345)):
        mixed = (mixed**2 + factor * mixed + summand) % PRIME
    return mixed / PRIME


@functools.cache
def heads() -> RetainingHeads:
    return random_heads(tiny_model("llama"))


WITH_HEADS = " with heads"  # after the name of a policy that can do without
QUERIES = {"consensus": "catalyst", "infinipot": "catalyst", "snapkv": "newest", "h2o": "all"}


class OracleLlama:
    """Reads one token at a time, its attention in loops over lists: the definition.

    Only projections, norms and MLPs are the model's own modules.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        cache: CacheConfig,
        policy: PolicyConfig,
        catalyst: list[int],
        plan: str = "dense",
        *,
        with_heads: bool = False,
    ) -> None:
        config = model.config
        self.model, self.cache, self.policy, self.catalyst = model.double(), cache, policy, catalyst
        self.size = config.hidden_size // config.num_attention_heads
        theta = config.rope_parameters["rope_theta"]
        self.layers = [
            OracleCache(
                kv_heads=config.num_key_value_heads,
                scale=self.size**-0.5,
                frequencies=[theta ** (-2 * i / self.size) for i in range(self.size // 2)],
                positions=cache.positions,
                kind=None if isinstance(kind, Full) else kind,
            )
            for kind in parse_plan(plan, config.num_hidden_layers)
        ]
        self.full = [i for i, layer in enumerate(self.layers) if layer.kind is None]
        self.retaining = heads().layers if with_heads else {}
        self.queries = None if with_heads else QUERIES.get(policy.name)
        self.recent: list[list[np.ndarray]] = [[] for _ in self.layers]
        self.hidden = self.last = None
        self.sentence = 0
        self.read_tokens = self.cycles = 0

    @torch.no_grad()
    def forward(self, token: int, **scores: float) -> tuple[torch.Tensor, list[np.ndarray]]:
        """Hidden state of one more token, and its unrotated queries per layer."""
        body, queries = self.model.model, []
        x = body.embed_tokens(torch.tensor([token]))
        for i, (block, oracle) in enumerate(zip(body.layers, self.layers, strict=True)):
            attention, normed = block.self_attn, block.input_layernorm(x)
            q, k, v = (
                p(normed).reshape(-1, self.size).numpy()
                for p in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            heads = range(len(k))
            own = scores | {"noise": [drawn(i, head, oracle.next_token) for head in heads]}
            if self.retaining:
                features = np.concatenate([x.ravel() for x in (q, k, v)]).tolist()
                weights = [w.tolist() for w in self.retaining[i]]
                own["retaining"] = retaining_score(features, *weights)
            out = oracle.step(q, k, v, attention=0.0, **own)
            x = x + attention.o_proj(torch.tensor(out, dtype=torch.float64).reshape(1, -1))
            x = x + block.mlp(block.post_attention_layernorm(x))
            queries.append(q)
        return body.norm(x), queries

    def logits(self) -> np.ndarray:
        with torch.no_grad():
            return self.model.lm_head(self.hidden)[0].numpy()

    def nll(self, token: int) -> float:
        if self.hidden is None:
            return 1e30
        return -float(torch.log_softmax(torch.from_numpy(self.logits()), -1)[token])

    def read(self, ids: list[int]) -> None:
        # Of consensus, with heads too: a question asks the archive from there.
        asks = self.queries == "catalyst" or self.policy.name == "consensus"
        reserved = self.cache.catalyst_size if asks else 0
        room = self.cache.capacity - reserved - self.cache.budget
        first = self.layers[self.full[0]]
        for place, token in enumerate(ids):
            for layer in self.layers:
                chunk_read = self.read_tokens % self.cache.chunk_size == 0
                if isinstance(layer.kind, BlockSparse) and self.read_tokens and chunk_read:
                    layer.free(lag=64 if self.queries == "newest" else 1)
            if first.used == self.cache.capacity - reserved:
                left, tail = len(ids) - place, self.policy.options.get("tail_size")
                recent = self.cache.recent_size
                if tail is not None and left <= room:
                    recent = max(0, tail - left)
                self.cycle(recent)
            if self.last in SENTENCE_ENDS or self.last is None:
                self.sentence = self.read_tokens
            self.last = token
            scores = {"nll": self.nll(token), "sentence": self.sentence}
            attention = "expected" if self.retaining else "agreed"
            hidden, queries = self.forward(token, **scores, **{attention: 0.0})
            self.hidden, self.read_tokens = hidden, self.read_tokens + 1
            if self.retaining:
                newest = [head[-1].scores for i in self.full for head in self.layers[i].heads]
                expected = float(np.mean([math.exp(each["retaining"]) for each in newest]))
                for each in newest:
                    each["expected"] = expected
            for recent, q in zip(self.recent, queries, strict=True):
                recent.append(q)
            if self.queries == "all":
                self.score([[q] for q in queries], start=first.used - 1)

    def score(self, queries: list[list[np.ndarray]], start: int) -> None:
        decay = DECAY.get(self.policy.name, 0.0)
        agreed = self.policy.name == "consensus"
        for i in self.full:
            oracle, of_layer = self.layers[i], queries[i]
            pools = {"query_pool": "max", "group_pool": "max"} if agreed else {}
            oracle.remember(oracle.score(of_layer, start=start, **pools), decay=decay)
        heads = [head for i in self.full for head in self.layers[i].heads]
        for slot in range(len(heads[0]) if agreed else 0):
            mean = float(np.mean([head[slot].scores["attention"] for head in heads]))
            for head in heads:
                head[slot].scores["agreed"] = mean

    def cycle(self, recent_size: int) -> None:
        used = self.layers[self.full[0]].used
        if self.queries == "catalyst":
            asked = [self.forward(token)[1] for token in self.catalyst]
            self.score([list(q) for q in zip(*asked, strict=True)], start=used)
            for oracle in self.layers:
                oracle.drop(len(self.catalyst))
        elif self.queries == "newest":
            last = [recent[-64:] for recent in self.recent]
            self.score(last, start=used - len(last[0]))
        limits = {"budget": self.cache.budget, "prefix": self.cache.sink_size}
        for i in self.full:
            self.layers[i].evict(self.policy, recent=recent_size, **limits)
        self.recent = [[] for _ in self.layers]
        self.cycles += 1


CACHE = {
    "capacity": 24,
    "budget": 12,
    "chunk_size": 5,
    "catalyst_size": 4,
    "sink_size": 2,
    "recent_size": 3,
}
CATALYST = [40, 41, 42]
# Most tokens twice or more: in the first layer their keys tie for `knorm`, up to rounding.
TEXT = np.random.default_rng(5).integers(0, 40, 61).tolist()
# For those that go by sentences: many short ones, so that there is a choice.
SENTENCES = [
    token for i, each in enumerate(TEXT) for token in ([each, 46] if i % 5 in (1, 4) else [each])
]
POLICIES = [
    "consensus",
    "infinipot",
    "locret",
    f"consensus{WITH_HEADS}",
    "snapkv",
    "h2o",
    "sink_window",
    "keydiff",
    "knorm",
    "random",
]
CASES = [(p, "contiguous", "dense") for p in POLICIES]
CASES += [("consensus", "absolute", "dense"), ("knorm", "absolute", "dense")]
HYBRIDS = [
    ("infinipot", "contiguous", "0: sink_window(sink=2, window=7); 1: full"),
    ("h2o", "contiguous", "0: full; 1: sink_window(sink=2, window=4, block=2)"),
    ("locret", "contiguous", "0: full; 1: sink_window(sink=0, window=5)"),
    ("snapkv", "absolute", "0: sink_window(sink=4, window=8, block=4); 1: full"),
]
BLOCKS = "block_sparse(block=2, stride=3, local=2, reach={}, shift={}{})"
HYBRIDS += [  # a reach that ends within the text, and heads that see different blocks
    ("infinipot", "contiguous", "0: " + BLOCKS.format(12, 0, "") + "; 1: full"),
    ("consensus", "contiguous", "0: full; 1: " + BLOCKS.format(9, 1, ", sink=0, offset=1")),
    ("snapkv", "absolute", "0: " + BLOCKS.format(24, 1, "") + "; 1: full"),
]
OPTIONS = {  # of locret's tail, the last cycle keeps the tokens that were read
    "consensus": {"catalyst": "abc"},
    "infinipot": {"attention_span": 3, "nll_span": 3, "catalyst": "abc"},
    "locret": {"score_span": 3, "nll_span": 3, "tail_size": 8},
    "snapkv": {"attention_span": 3},
}
# Every policy on every target: test_targets_agree.py. Here, heads of a file, places in the text.
COMPILED = [(f"consensus{WITH_HEADS}", "contiguous", "dense"), HYBRIDS[3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder, "llama")
    return folder


@pytest.fixture(scope="module")
def captured() -> ModelGraph:
    return capture(tiny_model("llama"))


def configured(policy: str, positions: str, plan: str = "dense") -> CompileConfig:
    return CompileConfig(
        plan=plan,
        cache=CacheConfig(**CACHE, positions=positions),
        policy=PolicyConfig(
            name=policy.removesuffix(WITH_HEADS),
            options=OPTIONS.get(policy.removesuffix(WITH_HEADS), {}),
        ),
    )


def goes_by_heads(policy: str) -> bool:
    return policy == "locret" or policy.endswith(WITH_HEADS)


def on_reference(
    captured: ModelGraph, folder: Path, config: CompileConfig, *, with_heads: bool
) -> Session:
    files = {each.name: each.read_bytes() for each in folder.glob("*.json")}
    policy = make_policy(config.policy, with_heads=with_heads)
    ends = sentence_ends(files, captured.vocab_size)
    trained = heads() if with_heads else None
    subject = Subject(captured, "tiny", "llama", sentence_ends=ends, heads=trained)
    special = specialize(subject, config, policy)
    facts = text_facts(
        files, vocab_size=captured.vocab_size, catalyst=policy.catalyst, catalyst_size=4
    )
    manifest = exact_of(manifest_of(special, config, None, facts), special)
    return Model(manifest, Tokenizer(folder), ReferenceEngine(special.programs)).session()


def in_force(policy: PolicyConfig, *, with_heads: bool = False) -> PolicyConfig:
    options = options_in_force(make_policy(policy, with_heads=with_heads))
    return PolicyConfig(name=policy.name, options=options)


def text_of(policy: str) -> list[int]:
    return SENTENCES if policy.startswith("consensus") else TEXT


def read(session: Session) -> np.ndarray:
    if session.reads_catalyst:
        session.catalyst = CATALYST
    session.feed(text_of(session.manifest.policy.name), prefix=False, last=True)
    assert len(session.cycles) >= 3
    return session._executor.logits()


@pytest.mark.parametrize(("policy", "positions", "plan"), CASES + HYBRIDS)
def test_every_policy_is_the_loops(
    policy: str, positions: str, plan: str, captured: ModelGraph, folder: Path
) -> None:
    config, with_heads = configured(policy, positions, plan), goes_by_heads(policy)
    session = on_reference(captured, folder, config, with_heads=with_heads)
    own = in_force(config.policy, with_heads=with_heads)
    model = tiny_model("llama")
    oracle = OracleLlama(model, config.cache, own, CATALYST, plan, with_heads=with_heads)
    oracle.read(text_of(policy))
    np.testing.assert_allclose(read(session), oracle.logits(), atol=1e-4)
    assert len(session.cycles) == oracle.cycles
    for i in oracle.full:
        np.testing.assert_array_equal(session.kept_tokens(i), oracle.layers[i].tokens())
    for group in session.manifest.groups[1:]:
        text, layer = text_of(policy), group.layers[0]
        kind, tokens = session.manifest.model.layers[layer].kind, session.kept_tokens(layer)
        assert tokens.shape[1] <= group.slots
        for head, kept in enumerate(tokens.tolist()):
            assert kept == sorted(set(kept))
            assert set(kept) >= {t for t in range(len(text)) if sees(kind, len(text) - 1, t, head)}


def test_a_plan_may_have_no_full_layer(captured: ModelGraph, folder: Path) -> None:
    config = configured("consensus", "contiguous", "0-1: sink_window(sink=2, window=6)")
    session = on_reference(captured, folder, config, with_heads=False)
    session.feed(TEXT, prefix=False)
    own = in_force(config.policy)
    oracle = OracleLlama(tiny_model("llama"), config.cache, own, CATALYST, config.plan)
    for token in TEXT:
        oracle.hidden, _ = oracle.forward(token)
    np.testing.assert_allclose(session.next_logits(), oracle.logits(), atol=1e-4)


@pytest.mark.parametrize(("policy", "positions", "plan"), COMPILED)
def test_onnx_runtime_is_the_reference(
    policy: str, positions: str, plan: str, captured: ModelGraph, folder: Path, tmp_path: Path
) -> None:
    config = configured(policy, positions, plan)
    reference = on_reference(captured, folder, config, with_heads=goes_by_heads(policy))
    if goes_by_heads(policy):
        save_heads(tmp_path / "heads.safetensors", heads(), half=False)
        config = msgspec.structs.replace(config, heads=str(tmp_path / "heads.safetensors"))
    compile_model(folder, tmp_path / "m.lcc", config)
    session = lcc.runtime.open(tmp_path / "m.lcc")
    np.testing.assert_allclose(read(session), read(reference), atol=1e-4)
    for i in range(len(session.manifest.model.layers)):
        np.testing.assert_array_equal(session.kept_tokens(i), reference.kept_tokens(i))
    written = list(session.generate_ids(max_new_tokens=30, eos=[]))
    assert written == list(reference.generate_ids(max_new_tokens=30, eos=[]))
    assert len(session.cycles) >= 6  # generation went through cycles of its own


def test_only_the_last_cycle_of_a_text_frees_the_newest(captured: ModelGraph, folder: Path) -> None:
    """A text read in pieces keeps its stabilizers, as one read at once does before its end."""

    def kept(*pieces: list[int], last: bool = False) -> list[int]:
        session.reset()
        for piece in pieces:
            session.feed(piece, prefix=False, last=last)
        return session.kept_tokens(1).tolist()

    session = on_reference(captured, folder, configured("locret", "contiguous"), with_heads=True)
    whole = kept(TEXT)
    assert kept(*(TEXT[i : i + 7] for i in range(0, len(TEXT), 7))) == whole
    assert kept(TEXT, last=True) != whole


def test_heads_that_cannot_be_gone_by(captured: ModelGraph, tmp_path: Path) -> None:
    config = configured(f"consensus{WITH_HEADS}", "contiguous")
    page = msgspec.structs.replace(heads().page, teacher="answer")
    save_heads(tmp_path / "answers.safetensors", dataclasses.replace(heads(), page=page))
    policy = make_policy(config.policy, with_heads=True)
    model = tiny_model("llama")
    with pytest.raises(ConfigError, match="taught by repeating, these by answers"):
        load_heads_for(policy, str(tmp_path / "answers.safetensors"), model, "tiny")
    with pytest.raises(ConfigError, match="nll_weight is 1, which reads no heads"):
        make_policy(PolicyConfig(options={"nll_weight": 1.0}), with_heads=True)
    config = msgspec.structs.replace(config, plan="0-1: sink_window(sink=2, window=6)")
    subject = Subject(captured, "tiny", "llama", heads=heads())
    with pytest.raises(ConfigError, match="leaves no layer full"):
        specialize(subject, config, policy)
