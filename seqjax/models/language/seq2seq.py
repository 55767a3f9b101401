"""Recurrent encoder-decoders: without attention, with attention before each step, and with attention after it.

- Ilya Sutskever, Oriol Vinyals, Quoc V. Le, *Sequence to Sequence Learning with Neural Networks*, NIPS 2014,
  https://arxiv.org/abs/1409.3215: the decoder begins where the encoder ended (`Config.sutskever()`).
- Dzmitry Bahdanau, Kyunghyun Cho, Yoshua Bengio, *Neural Machine Translation by Jointly Learning to Align and
  Translate*, ICLR 2015, https://arxiv.org/abs/1409.0473: the state before a step asks for its context (`Config()`).
- Minh-Thang Luong, Hieu Pham, Christopher D. Manning, *Effective Approaches to Attention-based Neural Machine
  Translation*, EMNLP 2015, https://arxiv.org/abs/1508.04025: the state after it does (`Config.luong()`).

One decoder has all of it as options. Ids are those of `seqjax.ops.tokens`; a source that is read from its end is read
so within its length, and what is aligned stays in its own order.

Departures: Bahdanau et al.'s readout sees the state before the step, here the one after it, as in most
implementations; the embedding of 620 and the maxout layer of 500 are as in their code. Sutskever et al. and Luong et
al. draw all parameters from a uniform distribution, as here; Bahdanau et al.'s initialisation is the cells' own
instead. Scheduled sampling (Bengio et al., 2015) draws at one rate throughout.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.split import merge, split
from seqjax.ops import attention, cells
from seqjax.ops.beam_search import Beams, beam_search
from seqjax.ops.cells import LSTMCarry
from seqjax.ops.compose import Directions, bidirectional, dropped
from seqjax.ops.linear import affine
from seqjax.ops.recurrence import Cell
from seqjax.ops.scan import unroll
from seqjax.ops.softmax import masked_softmax
from seqjax.ops.tokens import BOS, EOS, PAD, forbidden, foretold, lengths, real, token_cross_entropy, token_mean

CellName = Literal["lstm", "gru", "gru_reset_before"]
ScoreName = Literal["none", "dot", "general", "additive", "location"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options; the defaults are RNNsearch, of Bahdanau et al."""

    vocabulary: int = 30_000
    """Ids that are written."""
    source_vocabulary: int | None = 30_000
    """Ids that are read; None for those that are written, in a vocabulary of both."""
    embedding: int = 620
    """Size of an embedded id."""
    cell: CellName = "gru_reset_before"
    """Of encoder and decoder, by its name in ``seqjax.ops.cells``."""
    features: int = 1000
    """Width of each layer, in each direction."""
    layers: int = 1
    """Of the encoder, and of the decoder."""
    encoder: Literal["forward", "reversed", "bidirectional"] = "bidirectional"
    """How the source is read. The decoder's layers begin where the encoder's ended; after a bidirectional one, from
    ``tanh(W_s ←h_1)``."""
    score: ScoreName = "additive"
    """How a state is compared with the source's: by one of ``seqjax.ops.attention``, additive being Luong's concat; by
    "location", a place's logit from the state alone; or not at all."""
    alignment: int = 1000
    """Width within the additive score."""
    longest: int = 64
    """Places that "location" knows."""
    query: Literal["previous", "current"] = "previous"
    """Whether the context is asked for by the state before the step, which then reads it, or by the one after it."""
    window: Literal["global", "monotonic", "predictive"] = "global"
    """Places that are seen: all; those within ``reach`` of the step's own number (local-m); or of a place that the
    state foretells, the nearer the more (local-p)."""
    reach: int = 10
    """D of the windows."""
    input_feeding: bool = False
    """Whether a step also reads what the last one's readout found."""
    readout: Literal["linear", "maxout", "tanh"] = "maxout"
    """What the logits are of: state and context; maxout of state, embedding and context; tanh of context and state."""
    readout_features: int = 500
    """Width of maxout and of tanh."""
    dropout: float = 0.0
    """Of embeddings and of what goes up from layer to layer."""
    sampling: float = 0.0
    """Share of the decoder's inputs in training that it has drawn itself."""
    mean: Literal["tokens", "texts"] = "tokens"
    """What the loss is a mean over: the tokens of all targets, or targets, each with the sum of its tokens."""
    uniform: float | None = None
    """All parameters begin uniform between minus this and this; as each layer likes it if None."""
    beams: int = 12
    """Hypotheses of beam search; 1 decodes greedily."""
    length_penalty: float = 0.0
    """α of beam search."""
    extra: int = 50
    """Tokens that an output may have more than the padded input."""

    @classmethod
    def sutskever(cls) -> "Config":
        """Four layers of 1,000, without attention, the source from its end."""
        options: dict[str, Any] = {"vocabulary": 80_000, "source_vocabulary": 160_000, "encoder": "reversed"}
        options |= {"score": "none", "readout": "linear", "mean": "texts", "uniform": 0.08}
        return cls(embedding=1000, cell="lstm", layers=4, **options)

    @classmethod
    def luong(cls) -> "Config":
        """Four layers of 1,000, local-p attention with the general score, input feeding."""
        options: dict[str, Any] = {"vocabulary": 50_000, "source_vocabulary": 50_000, "encoder": "reversed"}
        options |= {"score": "general", "query": "current", "window": "predictive", "input_feeding": True}
        options |= {"readout": "tanh", "readout_features": 1000, "dropout": 0.2, "mean": "texts", "uniform": 0.1}
        return cls(embedding=1000, cell="lstm", layers=4, **options)

    @classmethod
    def tiny(cls) -> "Config":
        """For tests."""
        sizes: dict[str, Any] = {"vocabulary": 14, "source_vocabulary": None, "embedding": 6, "features": 8}
        return cls(**sizes, alignment=5, readout_features=6, beams=2, extra=0)

    @property
    def encoded(self) -> int:
        """Features of the encoder's outputs."""
        return self.features * (2 if self.encoder == "bidirectional" else 1)


class Memory(NamedTuple):
    """The source as the decoder sees it."""

    keys: Float[Array, "B S A"]
    """What the score makes of the values."""
    values: Float[Array, "B S C"]
    """The encoder's outputs."""
    lengths: Int[Array, " B"]


class State(NamedTuple):
    """Of the decoder."""

    layers: tuple[Any, ...]
    """Carries of the cells."""
    fed: Float[Array, "B F"]
    """What the last readout found, for input feeding; without it, F is 0."""
    time: Int[Array, ""]
    """Tokens so far."""


class Encoder(nnx.Module):
    """Layers that read the source."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config, cell = config, getattr(cells, config.cell)
        self.embedding = nnx.Embed(config.source_vocabulary or config.vocabulary, config.embedding, rngs=rngs)
        sizes, both = [config.embedding] + [config.encoded] * (config.layers - 1), config.encoder == "bidirectional"

        def layer(size: int) -> Any:
            one = functools.partial(cell.init, in_features=size, features=config.features)
            return Directions(one(rngs.params()), one(rngs.params())) if both else one(rngs.params())

        self.layers = nnx.Param(tuple(map(layer, sizes)))

    def __call__(
        self, source: Int[Array, "B S"], *, key: PRNGKeyArray | None = None
    ) -> tuple[tuple[Any, ...], Float[Array, "B S C"]]:
        """Where each layer ended, of a bidirectional one its backward half, and the outputs of the top one."""
        cell, sizes, ends = getattr(cells, self.config.cell), lengths(source), []
        xs = self.embedding(source)
        for i, params in enumerate(compat.pure(self.layers)):
            xs = dropped(xs, self.config.dropout, None if key is None else jax.random.fold_in(key, i))
            if self.config.encoder == "bidirectional":
                (_, end), xs = bidirectional(cell, params, None, xs, lengths=sizes)
            else:
                end, xs = unroll(cell, params, None, xs, lengths=sizes, reverse=self.config.encoder == "reversed")
            ends.append(end)
        return tuple(ends), xs


class Attention(nnx.Module):
    """Where in the source a state looks."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config, size = config, config.features
        if config.score == "location":
            self.places = nnx.Linear(size, config.longest, use_bias=False, rngs=rngs)
        else:
            width = {"features": config.alignment} if config.score == "additive" else {}
            if config.score == "dot" and config.encoded != size:
                raise InputError(
                    f"score='dot' multiplies states of {size} features with {config.encoded} of a bidirectional "
                    "encoder: choose another score or another encoder."
                )
            self.score = nnx.Param(self._function.init(rngs.params(), size, config.encoded, **width))
        if config.window == "predictive":
            self.guess = nnx.Linear(size, size, use_bias=False, rngs=rngs)
            self.place = nnx.Linear(size, 1, use_bias=False, rngs=rngs)

    @property
    def _function(self) -> attention.Score:
        return getattr(attention, self.config.score)

    def keys(self, values: Float[Array, "B S C"]) -> Float[Array, "B S A"]:
        """What does not depend on the state."""
        if self.config.score != "location":
            return self._function.project(compat.pure(self.score), values)
        if values.shape[1] > self.config.longest:
            raise InputError(
                f"score='location' knows longest={self.config.longest} places, and a source has {values.shape[1]}: "
                "raise longest, or choose another score."
            )
        return values

    def __call__(
        self, state: Float[Array, "B D"], memory: Memory, time: Int[Array, ""]
    ) -> tuple[Float[Array, "B C"], Float[Array, "B S"]]:
        """The context, and the weights that it is a sum with."""
        size = memory.values.shape[1]
        if self.config.score == "location":
            logits = self.places(state)[:, :size].astype(jnp.float32)
        else:
            logits = self._function.logits(compat.pure(self.score), state[:, None], memory.keys)[:, 0]
        place = self._place(state, memory, time)
        distance = jnp.broadcast_to(jnp.arange(size, dtype=jnp.float32), (len(state), size)) - place[:, None]
        seen = jnp.arange(size)[None] < memory.lengths[:, None]
        if self.config.window != "global":
            seen = seen & (jnp.abs(distance) <= self.config.reach)
        weights = masked_softmax(logits, seen)
        if self.config.window == "predictive":
            weights = weights * jnp.exp(-2 * jnp.square(distance / self.config.reach))  # σ is half of the reach
        return jnp.einsum("bs,bsc->bc", weights.astype(memory.values.dtype), memory.values), weights

    def _place(self, state: Array, memory: Memory, time: Array) -> Float[Array, " B"]:
        if self.config.window != "predictive":
            return jnp.broadcast_to(time.astype(jnp.float32), memory.lengths.shape)
        share = jax.nn.sigmoid(self.place(jnp.tanh(self.guess(state)))[:, 0].astype(jnp.float32))
        return share * memory.lengths.astype(jnp.float32)


class Decoder(nnx.Module):
    """Layers that write the target."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config, context = config, 0 if config.score == "none" else config.encoded
        self.embedding = nnx.Embed(config.vocabulary, config.embedding, rngs=rngs)
        self.attention = Attention(config, rngs=rngs) if context else None
        linear = functools.partial(nnx.Linear, rngs=rngs)
        begun = config.layers if config.encoder == "bidirectional" else 0
        self.begin = compat.List([linear(config.features, config.features) for _ in range(begun)])
        found = {"linear": config.features + context}.get(config.readout, config.readout_features)
        self.found = found if config.input_feeding else 0
        bottom = config.embedding + self.found + (context if config.query == "previous" else 0)
        sizes = [bottom] + [config.features] * (config.layers - 1)
        self.layers = nnx.Param(tuple(self.cell.init(rngs.params(), size, config.features) for size in sizes))
        if config.readout == "maxout":
            self.read = linear(config.features + config.embedding + context, 2 * config.readout_features)
        elif config.readout == "tanh":
            self.read = linear(context + config.features, config.readout_features, use_bias=False)
        self.output = linear(found, config.vocabulary)

    @property
    def cell(self) -> Cell:
        """Of each layer."""
        return getattr(cells, self.config.cell)

    def start(self, ends: tuple, values: Float[Array, "B S C"], sizes: Int[Array, " B"]) -> tuple[State, Memory]:
        """The state before the first token, and the source as every step sees it."""
        first = tuple(map(self._begun, self.begin, ends)) if self.begin else ends
        keys = values if self.attention is None else self.attention.keys(values)
        fed = jnp.zeros((len(values), self.found), values.dtype)
        return State(first, fed, jnp.zeros((), jnp.int32)), Memory(keys, values, sizes)

    def step(
        self, memory: Memory, state: State, x_t: Float[Array, "B E"], *, key: PRNGKeyArray | None = None
    ) -> tuple[State, tuple[Float[Array, "B F"], Float[Array, "B S"]]]:
        """An embedded token more: the new state, and the readout's finding with the weights of attention."""
        parts, found = [x_t, state.fed], (jnp.zeros((len(x_t), 0), x_t.dtype), jnp.zeros(memory.values.shape[:2]))
        if self.attention is not None and self.config.query == "previous":
            found = self.attention(_output(state.layers[-1]), memory, state.time)
            parts.append(found[0])
        xs, layers = jnp.concatenate(parts, axis=-1), []
        for i, (params, carry) in enumerate(zip(compat.pure(self.layers), state.layers, strict=True)):
            carry, xs = self.cell.step(params, carry, self.cell.project(params, xs, affine), affine)
            place = None if key is None else jax.random.fold_in(jax.random.fold_in(key, i), state.time)
            xs = dropped(xs, self.config.dropout, place)
            layers.append(carry)
        if self.attention is not None and self.config.query == "current":
            found = self.attention(xs, memory, state.time)
        read = self._read(xs, x_t, found[0])
        fed = read if self.config.input_feeding else state.fed
        return State(tuple(layers), fed, state.time + 1), (read, found[1])

    def _begun(self, net: nnx.Linear, end: Any) -> Any:
        h = jnp.tanh(net(_output(end)))
        return LSTMCarry(h, jnp.zeros_like(h)) if isinstance(end, LSTMCarry) else h

    def _read(self, state: Array, x_t: Array, context: Array) -> Float[Array, "B F"]:
        match self.config.readout:
            case "maxout":
                pieces = self.read(jnp.concatenate([state, x_t, context], axis=-1))
                return jnp.max(pieces.reshape(*pieces.shape[:-1], -1, 2), axis=-1)
            case "tanh":
                return jnp.tanh(self.read(jnp.concatenate([context, state], axis=-1)))
            case _:
                return jnp.concatenate([state, context], axis=-1)


class Seq2Seq(nnx.Module):
    """Encoder and decoder."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder, self.decoder = Encoder(config, rngs=rngs), Decoder(config, rngs=rngs)

    def __call__(
        self, source: Int[Array, "B S"], target: Int[Array, "B T"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B T V"], Float[Array, "B T S"]]:
        """Logits of the token after each of the target's, and where each step looked; a key draws dropout, and the
        tokens that stand in for the target's under scheduled sampling.
        """
        keys = [None] * 4 if key is None else jax.random.split(key, 4)
        state, memory = self.encode(source, key=keys[0])
        if key is not None and self.config.sampling:
            target = jax.lax.stop_gradient(self._mixed(memory, state, target, keys))
        xs = dropped(self.decoder.embedding(target), self.config.dropout, keys[1])

        def step(_: Any, state: State, x_t: Array) -> tuple[State, tuple[Array, Array]]:
            return self.decoder.step(memory, state, x_t, key=keys[2])

        _, (found, weights) = unroll(step, (), state, xs)
        return self.decoder.output(found), weights

    def encode(self, source: Int[Array, "B S"], *, key: PRNGKeyArray | None = None) -> tuple[State, Memory]:
        """The source read, and the decoder's state before the first token."""
        return self.decoder.start(*self.encoder(source, key=key), lengths(source))

    def search(self, source: Int[Array, "B S"]) -> Beams:
        """The best outputs by beam search, each at most ``extra`` longer than the padded source."""
        config, (state, memory) = self.config, self.encode(source)

        def step(state: State, token: Array) -> tuple[State, Array]:
            state, (found, _) = self.decoder.step(memory, state, self.decoder.embedding(token))
            return state, forbidden(self.decoder.output(found), PAD, BOS)

        return beam_search(
            step,
            state,
            jnp.full(len(source), BOS, source.dtype),
            beams=config.beams,
            length=source.shape[1] + config.extra,
            end=EOS,
            pad=PAD,
            length_penalty=config.length_penalty,
        )

    def _mixed(self, memory: Memory, state: State, target: Array, keys: Any) -> Int[Array, "B T"]:
        """The target, of which a share is what the decoder drew in its place; no gradient goes through a draw."""
        own = jax.random.bernoulli(keys[3], self.config.sampling, target.shape).at[:, 0].set(False)

        def step(_: Any, carry: tuple[State, Array], inputs: tuple[Array, Array]) -> tuple[tuple[State, Array], Array]:
            (state, drawn), (token, mine) = carry, inputs
            token = jnp.where(mine, drawn, token)
            draw = jax.random.fold_in(keys[3], state.time)
            state, (found, _) = self.decoder.step(memory, state, self.decoder.embedding(token), key=keys[2])
            logits = forbidden(self.decoder.output(found), PAD, BOS).astype(jnp.float32)
            return (state, jax.random.categorical(draw, logits).astype(token.dtype)), token

        _, tokens = unroll(step, (), (state, target[:, 0]), (target, own))
        return jnp.where(real(target), tokens, target)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, Seq2Seq]:
    """The one network of the system."""
    nets = {"seq2seq": Seq2Seq(config, rngs=rngs)}
    if config.uniform is None:
        return nets
    parts = split(dict(nets))
    leaves, tree = jax.tree.flatten(parts.params)
    drawn = [jax.random.uniform(rngs.params(), x.shape, x.dtype, -config.uniform, config.uniform) for x in leaves]
    merged: Any = merge(parts.graphs, jax.tree.unflatten(tree, drawn), parts.rest)
    return merged


def loss(
    nets: dict[str, Seq2Seq], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Cross-entropy, mean over the tokens of all targets or over targets, and how many tokens are foretold.

    Args:
      nets: of `build`.
      batch: ids ``source`` [B, S] and ``target`` [B, T + 1].
      key: draws dropout and scheduled sampling.
    """
    asked = batch["target"][:, 1:]
    logits, _ = nets["seq2seq"](batch["source"], batch["target"][:, :-1], key=key)
    cost, mean = token_cross_entropy(logits, asked), nets["seq2seq"].config.mean
    total = token_mean(cost, asked) if mean == "tokens" else jnp.mean(jnp.sum(cost, axis=1))
    return total, foretold(logits, asked)


def predict(nets: dict[str, Seq2Seq], batch: dict[str, Array]) -> Int[Array, "B L"]:
    """The best output for each source, as ids: EOS, then PAD, where it is shorter than ``S + extra``."""
    return nets["seq2seq"].search(batch["source"]).tokens[:, 0]


def _output(carry: Any) -> Float[Array, "B D"]:
    return carry.h if isinstance(carry, LSTMCarry) else carry
