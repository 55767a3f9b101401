"""Show, Attend and Tell (Xu et al., 2015): captions by an LSTM that looks at a part of the image for every word.

Kelvin Xu, Jimmy Lei Ba, Ryan Kiros, Kyunghyun Cho, Aaron Courville, Ruslan Salakhutdinov, Richard S. Zemel, Yoshua
Bengio, *Show, Attend and Tell: Neural Image Caption Generation with Visual Attention*, ICML 2015,
https://arxiv.org/abs/1502.03044, with what the authors' code adds to it.

A network gives the image as annotation vectors, one for each place. Before every word the LSTM's state scores the
places; what it then sees is their mean under the softmax of the scores ("soft"), or one place drawn from it ("hard"),
whose choice learns from how well the caption was foretold. A gate says how much the image matters for this word, and a
deep output layer reads state, sight and the last word. The defaults are those of the released code for COCO.

Departures: captions begin with a token of their own, where the code has a vector of zeros; the constant that it adds to
all scores, and the second of two biases that it adds up, are left out, for they change nothing; its Bernoulli draw
between a sampled and an expected sight is made for every image and not once for a batch, and its reward is the mean
over a caption's words; its batches are of captions of one length, here shorter ones are padded. Left out are options
of the code that the paper does not use: deeper LSTMs, one over the annotations, dropout of gates. ``attention="mean"``
is no part of the paper: the same decoder that sees all places alike.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from seqjax import compat
from seqjax.nn.image_encoder import EncoderConfig, ImageEncoder
from seqjax.ops import attention as attend
from seqjax.ops import tokens
from seqjax.ops.attention import AdditiveParams, additive
from seqjax.ops.cells import LSTMCarry, LSTMParams, lstm
from seqjax.ops.compose import dropout_mask
from seqjax.ops.linear import affine
from seqjax.ops.policy import moving_baseline, score_function
from seqjax.ops.recurrence import Affine, Cell
from seqjax.ops.scan import unroll


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and the losses; the defaults are those of the released code for COCO."""

    encoder: EncoderConfig = EncoderConfig()
    """What reads the image."""
    vocabulary: int = 10_000
    """Ids of tokens, the four special ones among them."""
    length: int = 20
    """Most tokens of a caption, its end among them."""
    embedding: int = 512
    """Features of a token."""
    features: int = 1800
    """Width of the LSTM."""
    attention: Literal["soft", "hard", "mean"] = "soft"
    """What is seen before a word: the expected place, a sampled one, or the mean of all."""
    attention_features: int | None = None
    """Width of the score's hidden layer; the annotations' if None."""
    attention_layers: int = 2
    """Layers between annotations and score."""
    initial_layers: int = 2
    """Layers between the mean annotation and the first state."""
    gate: Literal["scalar", "vector", "none"] = "scalar"
    """β, which weighs what is seen: one number, one for each feature, or none."""
    previous_to_output: bool = True
    """Whether the output layer reads the last word."""
    context_to_output: bool = True
    """Whether it reads what is seen."""
    dropout: float = 0.5
    """Share of the first state's hidden layers, of the states and of the output layer that is dropped."""
    coverage: float = 1.0
    """λ, weight of ``Σ_i (τ - Σ_t α_ti)²``."""
    coverage_target: Literal["one", "even"] = "one"
    """τ: 1, the paper's, or tokens / places, which can be met."""
    expected: float = 0.5
    """Hard attention: probability with which an image's sights are the expected ones instead of samples."""
    reward: Literal["caption", "word"] = "caption"
    """Hard attention: what a look is rewarded by, the mean log-probability of the caption or that of the next word."""
    reward_weight: float = 0.1
    """Hard attention: λ_r."""
    baseline_decay: float = 0.9
    """Hard attention: of the moving average of rewards."""
    entropy: float = 0.002
    """Hard attention: λ_e, of the bonus for looks that are not yet decided."""
    at_test: Literal["likeliest", "expected"] = "likeliest"
    """Hard attention: what is seen when nothing is drawn."""
    initial: Literal["arctic", "lecun"] = "arctic"
    """How kernels start: square ones orthogonal and others N(0, 0.01²), or LeCun-normal (recurrent ones orthogonal)."""
    beams: int = 1
    """Of the search for a caption; 1 is greedy."""
    length_penalty: float = 0.0
    """Of the search, see `ops.beam_search`."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests."""
        return cls(
            encoder=EncoderConfig.tiny(),
            vocabulary=9,
            length=4,
            embedding=5,
            features=7,
            attention_layers=1,
            initial_layers=1,
            dropout=0.0,
            coverage=0.1,
            initial="lecun",
        )


class Encoded(NamedTuple):
    """An image as the decoder takes it."""

    annotations: Float[Array, "B L C"]
    """``a_i``."""
    memory: Float[Array, "B L A"]
    """What the score needs of them."""


class Gate(NamedTuple):
    """``β = σ(W h + b)``."""

    kernel: Float[Array, "D G"]
    bias: Float[Array, " G"]


class Recurrent(NamedTuple):
    """Parameters of the recurrent part."""

    lstm: LSTMParams
    """Its inputs are the words."""
    context: Float[Array, "C 4D"]
    """From what is seen to the LSTM's gates."""
    score: AdditiveParams | None
    gate: Gate | None


class Inputs(NamedTuple):
    """Of the recurrent part, by step."""

    words: Float[Array, "*B E"]
    keys: Key[Array, "..."] | None
    """Where places are drawn."""


class Step(NamedTuple):
    """What a step leaves behind."""

    h: Float[Array, "*B D"]
    context: Float[Array, "*B C"]
    """What is seen, after the gate."""
    weights: Float[Array, "*B L"]
    """``α``."""
    seen: Float[Array, "*B L"]
    """The weights with which it is seen: ``α``, or 1 for the place drawn."""
    log_prob: Float[Array, "*B"]
    """``log α`` of the place drawn; 0 where none is."""
    entropy: Float[Array, "*B"]
    """Of ``α``."""


def attentive(config: Config, expected: Array | None) -> Cell:
    """The recurrent part as a cell; its parameters are ``(Recurrent, Encoded)``.

    Args:
      config: of the system.
      expected: hard attention in training: images whose sights are the expected ones, ``[B]``.
    """

    def project(params: tuple[Recurrent, Encoded], xs: Inputs, affine: Affine) -> Inputs:
        return xs._replace(words=lstm.project(params[0].lstm, xs.words, affine))

    def step(
        params: tuple[Recurrent, Encoded], carry: LSTMCarry, z_t: Inputs, affine: Affine
    ) -> tuple[LSTMCarry, Step]:
        own, encoded = params
        context, *found = _look(config, own.score, carry.h, encoded, expected, z_t.keys)
        if own.gate is not None:
            gate = jax.nn.sigmoid(affine(own.gate.bias, own.gate.kernel, carry.h))
            context = jnp.broadcast_to(gate, context.shape) * context
        carry, h = lstm.step(own.lstm, carry, affine(z_t.words, own.context, context), affine)
        return carry, Step(h, context, *found)

    def carry(params: tuple[Recurrent, Encoded], shape: tuple[int, ...]) -> LSTMCarry:
        return lstm.carry(params[0].lstm, shape)

    return Cell(lstm.init, carry, project, step)


def _look(
    config: Config,
    score: AdditiveParams | None,
    h: Float[Array, "B D"],
    encoded: Encoded,
    expected: Array | None,
    key: PRNGKeyArray | None,
) -> tuple[Array, Array, Array, Array, Array]:
    """Context, weights, the weights seen, ``log α``, entropy."""
    annotations, memory = encoded
    nothing = jnp.zeros(len(h))
    if score is None:
        alike = jnp.full(annotations.shape[:2], 1 / annotations.shape[1])
        return jnp.mean(annotations, axis=1), alike, alike, nothing, nothing
    logits = additive.logits(score, h[:, None], memory)
    soft = attend.soft_attention(logits, annotations)
    weights = soft.weights[:, 0]
    if config.attention == "soft" or (key is None and config.at_test == "expected"):
        return soft.context[:, 0], weights, weights, nothing, nothing
    hard = attend.hard_attention(logits, annotations, soft=expected, key=key)
    return hard.context[:, 0], weights, hard.weights[:, 0], hard.log_prob[:, 0], hard.entropy[:, 0]


class Decoder(nnx.Module):
    """Captions from annotations.

    Args:
      config: of the system.
      shape: height, width and features of the annotations.
      rngs: of the parameters.
    """

    def __init__(self, config: Config, shape: tuple[int, int, int], *, rngs: nnx.Rngs):
        self.config, self.shape = config, shape
        seen, own, word = shape[-1], config.features, config.embedding
        hidden, start = config.attention_features or seen, _initial(config)

        def linear(inputs: int, outputs: int, bias: bool = True) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=start, rngs=rngs)

        self.words = nnx.Embed(config.vocabulary, word, embedding_init=start, rngs=rngs)
        self.initial = compat.List([linear(seen, seen) for _ in range(config.initial_layers - 1)])
        self.initial_h, self.initial_c = linear(seen, own), linear(seen, own)
        cell = lstm.init(rngs.params(), word, own, forget_bias=0.0)
        self.recurrent = nnx.Param(
            Recurrent(
                cell._replace(input=start(rngs.params(), (word, 4 * own))),
                start(rngs.params(), (seen, 4 * own)),
                None if config.attention == "mean" else _score(start, rngs, own, seen, hidden),
                _gate(config, start, rngs, own, seen),
            )
        )
        layers = 0 if config.attention == "mean" else config.attention_layers - 1
        self.deeper = compat.List([linear(hidden, hidden) for _ in range(layers)])
        self.from_state = linear(own, word)
        self.from_context = linear(seen, word, bias=False) if config.context_to_output else None
        self.out = linear(word, config.vocabulary)
        self.baseline = nnx.Variable(jnp.zeros(()))

    def encode(self, maps: Float[Array, "B H W C"]) -> Encoded:
        """All that a caption needs of an image, once."""
        annotations = attend.positions(maps)
        score = compat.pure(self.recurrent).score
        if score is None:
            return Encoded(annotations, annotations)
        memory = additive.project(score, annotations)
        for layer in self.deeper:
            memory = jnp.tanh(layer(memory))
        return Encoded(annotations, memory)

    def init_state(self, encoded: Encoded, *, key: PRNGKeyArray | None = None) -> LSTMCarry:
        """The state before the first word, from the mean annotation; with a key for dropout."""
        mean = jnp.mean(encoded.annotations, axis=1)
        for i, layer in enumerate(self.initial):
            mean = self._dropped(jax.nn.relu(layer(mean)), key, i)
        return LSTMCarry(jnp.tanh(self.initial_h(mean)), jnp.tanh(self.initial_c(mean)))

    def step(
        self, state: LSTMCarry, token: Int[Array, " B"], encoded: Encoded
    ) -> tuple[LSTMCarry, Float[Array, "B V"], Float[Array, "B L"]]:
        """One more word: the next state, logits of the word after ``token``, and the weights with which was seen."""
        cell, params, word = attentive(self.config, None), self._params(encoded), self.words(token)
        state, found = cell.step(params, state, cell.project(params, Inputs(word, None), affine), affine)
        return state, self._read(word, found, None), found.seen

    def __call__(
        self, encoded: Encoded, ids: Int[Array, "B T"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B T V"], Step]:
        """Logits of the token after each of these, and what was seen: `step` over all of them.

        Args:
          encoded: of `encode`.
          ids: of the captions' tokens, from BOS on.
          key: in training, for dropout and for hard attention's draws.
        """
        config, words = self.config, self.words(ids)
        keys, expected = None, None
        if key is not None and config.attention == "hard":
            key_rows, key_places = jax.random.split(jax.random.fold_in(key, 100))
            keys = jax.random.split(key_places, ids.shape[1])
            expected = jax.random.bernoulli(key_rows, config.expected, (len(ids),))
        _, found = unroll(
            attentive(config, expected),
            self._params(encoded),
            self.init_state(encoded, key=key),
            Inputs(jnp.swapaxes(words, 0, 1), keys),
            time_axis=0,
            weight_gradient="deferred" if keys is None else "autodiff",  # keys have no cotangent
        )
        found = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found)
        return self._read(words, found, key), found

    def _params(self, encoded: Encoded) -> tuple[Recurrent, Encoded]:
        return Recurrent(*compat.pure(self.recurrent)), encoded

    def _read(self, words: Array, found: Step, key: PRNGKeyArray | None) -> Array:
        x = self.from_state(self._dropped(found.h, key, -1))
        x = x + words if self.config.previous_to_output else x
        x = x if self.from_context is None else x + self.from_context(found.context)
        return self.out(self._dropped(jnp.tanh(x), key, -2))

    def _dropped(self, x: Array, key: PRNGKeyArray | None, place: int) -> Array:
        if key is None or not self.config.dropout:
            return x
        return x * dropout_mask(jax.random.fold_in(key, 10 + place), self.config.dropout, x.shape, x.dtype)


Nets = dict[str, Any]
Batch = dict[str, Array]


def build(config: Config, rngs: nnx.Rngs) -> Nets:
    """The network that reads and the one that tells."""
    encoder = ImageEncoder(config.encoder, rngs=rngs)
    return {"encoder": encoder, "decoder": Decoder(config, encoder.shape, rngs=rngs)}


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-Σ_t log p(y_t | y_<t, a) + λ Σ_i (τ - Σ_t α_ti)²``, and hard attention's terms, averaged over images.

    Those are ``-λ_r (R - b) Σ_t log α_{t,s_t} - λ_e Σ_t H(α_t)`` with nothing flowing through R and b: in expectation
    their gradient is that of the rewards that the looks bring.

    Args:
      nets: of `build`.
      batch: "image" uint8 ``[B, H, W, 3]``; "captions" ids ``[B, length + 1]``, BOS, words, EOS, padding.
      key: of dropout and draws.
    """
    decoder = nets["decoder"]
    config, ids = decoder.config, batch["captions"]
    logits, found = decoder(decoder.encode(nets["encoder"](batch["image"])), ids[:, :-1], key=key)
    costs, counts = tokens.token_cross_entropy(logits, ids[:, 1:]), tokens.real(ids[:, 1:]).astype(jnp.float32)
    nll, lengths = jnp.sum(costs, axis=1), jnp.sum(counts, axis=1)
    target = lengths / found.weights.shape[-1] if config.coverage_target == "even" else 1.0
    weights = found.weights.astype(jnp.float32) * counts[..., None]
    coverage = jnp.mean(attend.coverage_penalty(weights, target=target))
    total, metrics = jnp.mean(nll) + config.coverage * coverage, {"nll": jnp.mean(nll), "coverage": coverage}
    if config.attention == "hard":
        rewards = -costs
        if config.reward == "caption":
            rewards = jnp.broadcast_to(-(nll / lengths)[:, None], costs.shape)
        baseline = decoder.baseline[...]
        policy = score_function(found.log_prob, rewards, jnp.broadcast_to(baseline, costs.shape))
        bonus = jnp.mean(jnp.sum(found.entropy * counts, axis=1))
        total += config.reward_weight * jnp.mean(jnp.sum(policy * counts, axis=1)) - config.entropy * bonus
        mean = -jnp.sum(nll) / jnp.sum(lengths) if config.reward == "word" else -jnp.mean(nll / lengths)
        decoder.baseline[...] = moving_baseline(baseline, mean, decay=config.baseline_decay)
        metrics |= {"entropy": bonus}
    return total, metrics


def predict(nets: Nets, batch: Batch) -> dict[str, Array]:
    """Captions written freely, and how well the true ones are foretold.

    Returns:
      "captions" ids ``[B, length]``; "nll" ``[B]``, of ``batch["captions"]`` in nats; "weights" ``[B, length, H, W]``,
      with which the image was seen before each of its tokens.
    """
    decoder, ids = nets["decoder"], batch["captions"]
    encoded = decoder.encode(nets["encoder"](batch["image"]))
    logits, found = decoder(encoded, ids[:, :-1])
    nll = jnp.sum(tokens.token_cross_entropy(logits, ids[:, 1:]), axis=1)
    return {"captions": write(decoder, encoded), "nll": nll, "weights": _maps(decoder, found.seen)}


def describe(nets: Nets, batch: Batch) -> dict[str, Array]:
    """Captions written freely, "captions", and the weights with which each of their tokens was found, "weights"."""
    decoder = nets["decoder"]
    encoded = decoder.encode(nets["encoder"](batch["image"]))
    ids = write(decoder, encoded)
    before = jnp.concatenate([jnp.full_like(ids[:, :1], tokens.BOS), ids[:, :-1]], axis=1)
    return {"captions": ids, "weights": _maps(decoder, decoder(encoded, before)[1].seen)}


def likelihoods(nets: Nets, batch: Batch, captions: Int[Array, "M T"]) -> Float[Array, "B M"]:
    """``log p(caption | image)`` of every image and every one of these captions, rows of ids, in nats."""
    decoder = nets["decoder"]
    encoded = decoder.encode(nets["encoder"](batch["image"]))
    return tokens.text_log_probs(lambda ids: decoder(encoded, ids)[0], captions, len(encoded.annotations))


def write(decoder: Decoder, encoded: Encoded) -> Int[Array, "B length"]:
    """The caption that the search finds."""
    config = decoder.config
    return tokens.write(
        lambda state, token: decoder.step(state, token, encoded)[:2],
        decoder.init_state(encoded),
        len(encoded.annotations),
        length=config.length,
        beams=config.beams,
        length_penalty=config.length_penalty,
    )


def _maps(decoder: Decoder, weights: Float[Array, "B T L"]) -> Float[Array, "B T H W"]:
    return weights.reshape(*weights.shape[:2], *decoder.shape[:2])


def _initial(config: Config) -> Callable[..., Array]:
    """How a kernel starts."""
    orthogonal, normal = jax.nn.initializers.orthogonal(), jax.nn.initializers.normal(0.01)
    lecun = jax.nn.initializers.lecun_normal()

    def start(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: object) -> Array:
        if config.initial == "lecun":
            return lecun(key, shape, dtype)
        return (orthogonal if shape[0] == shape[1] else normal)(key, shape, dtype)

    return start


def _score(start: Callable[..., Array], rngs: nnx.Rngs, query: int, key: int, hidden: int) -> AdditiveParams:
    return AdditiveParams(
        start(rngs.params(), (query, hidden)),
        start(rngs.params(), (key, hidden)),
        jnp.zeros(hidden),
        start(rngs.params(), (hidden, 1))[:, 0],
    )


def _gate(config: Config, start: Callable[..., Array], rngs: nnx.Rngs, own: int, seen: int) -> Gate | None:
    if config.gate == "none":
        return None
    width = 1 if config.gate == "scalar" else seen
    return Gate(start(rngs.params(), (own, width)), jnp.zeros(width))
