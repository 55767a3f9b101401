"""Recurrent encoder-decoders: what attention is for, on strings of digits written backwards.

    python -m experiments.language.seq2seq --workdir runs/seq2seq              # cpu: three systems, minutes
    python -m experiments.language.seq2seq cpu --systems luong --data.config sort_16
    python -m experiments.language.seq2seq paper --workdir runs/seq2seq-paper

The same command starts or resumes. `cpu` trains three decoders of one size one after another, each in a directory of
its own: "plain", which begins where the encoder ended (Sutskever et al., 2014), "bahdanau", whose state asks for its
context before each step (Bahdanau et al., 2015), and "luong", whose state asks after it, with input feeding (Luong et
al., 2015). `comparison.png` has their losses and where the digits of one string are looked for. `paper` is RNNsearch on
WMT 2014 English to French with its vocabulary of 30,000 words, Adadelta and sentences of at most 50; `sutskever` has
four layers of 1,000 on the same set, for 7.5 epochs of as many pairs as the paper selects of it, and `luong` four on
English to German with local-p attention, 12 epochs, both by SGD with the published rates. As in the papers, pairs of
which a sentence has more than 50 words are left out of training; no held-out source or reference is cut. `tiny` takes
seconds and is what the tests run. Without `systems`, one run trains `model` in the work directory itself.
Held out are other strings. What is measured is written freely, by beam search: the share of outputs that are right from
first to last, and BLEU; and the perplexity of the right output, its end included. Where strings are written backwards,
it is known where a step should look: `anti_diagonal` is the attention on the digit to write next, while the right
digits are read.

Measured: `cpu`, seed 0, one CPU core, 1 min 39 s: of 1,000 unseen strings of 16 digits plain writes 5.2 % right (BLEU
0.586), bahdanau 100 %, luong 99.9 %; `anti_diagonal` is 0.777 of bahdanau's attention, 0.999 of luong's, and would be
0.056 of one that is everywhere alike. They are trained by Muon: with Adam luong stayed at 96.7 %. The published ones
have not been trained yet.
"""

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from seqjax.data.sentence_pairs import (
    Language,
    Pairs,
    first_pairs,
    learn_language,
    measured,
    open_pairs,
    pair_batches,
    pair_tests,
    references,
    same_words,
)
from seqjax.data.transduction import writes_backwards
from seqjax.metrics.average import average
from seqjax.metrics.baselines import copied
from seqjax.metrics.captions import caption_metrics
from seqjax.metrics.metric import Metric, together
from seqjax.metrics.perplexity import target_perplexity
from seqjax.metrics.pointing import anti_diagonal
from seqjax.models.language import seq2seq
from seqjax.nn.split import split
from seqjax.ops.tokens import BOS, lengths, real, token_cross_entropy
from seqjax.train.command import main
from seqjax.train.comparison import run_several
from seqjax.train.evaluate import Evaluation, Sampling, compile_sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.plot import picture
from seqjax.train.restore import restore
from seqjax.train.step import Learner, minimise

System = Literal["plain", "bahdanau", "luong"]
METRICS = ("exact", "bleu_4", "anti_diagonal")

OPTIONS: dict[System, dict[str, Any]] = {
    "plain": {"encoder": "forward", "score": "none", "readout": "linear", "query": "current"},
    "bahdanau": {"encoder": "bidirectional", "score": "additive", "readout": "maxout", "query": "previous"},
    "luong": {
        **{"encoder": "bidirectional", "score": "general", "readout": "tanh", "query": "current"},
        "input_feeding": True,
    },
}
"""What sets the systems of a comparison apart."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: seq2seq.Config = seq2seq.Config(
        vocabulary=14,
        source_vocabulary=None,
        embedding=32,
        cell="gru",
        features=96,
        alignment=96,
        readout_features=96,
        beams=4,
        extra=2,
    )
    """The network."""
    data: Pairs = Pairs()
    """The pairs."""
    optimizer: Optimizer = Optimizer("muon", learning_rate=4e-3, schedule="cosine", clip_norm=1.0)
    """The optimiser."""
    loop: Loop = Loop(steps=600, log_every=20, save_every=100)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters, the order of the pairs, dropout and draws."""
    systems: tuple[System, ...] = ()
    """Systems to train one after another, each in workdir/<system>, and to draw side by side: the model, changed."""
    workdir: str = "runs/seq2seq"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


WMT = Pairs(
    name="wmt14_translate",
    config="fr-en",
    source="en",
    target="fr",
    tokenizer="13a",
    length=52,
    bounds=(12, 22, 32, 42, 52),
    batch=80,
    in_memory=False,
)
"""WMT 2014 English to French, to train on pairs of sentences of at most 50 words."""
PRESETS = {
    "cpu": Config(systems=("plain", "bahdanau", "luong")),
    "paper": Config(
        model=seq2seq.Config(),
        data=WMT,
        optimizer=Optimizer("adadelta", learning_rate=1.0, decay=0.95, eps=1e-6, clip_norm=1.0),
        loop=Loop(steps=667_000, log_every=100, evaluate_every=50_000, sample_every=50_000, save_every=2_000),
        workdir="runs/seq2seq-paper",
    ),
    # Five epochs of 12 million pairs at the full rate, then five halves of one, each at half the rate before it.
    "sutskever": Config(
        model=seq2seq.Config.sutskever(),
        data=dataclasses.replace(WMT, batch=128),
        optimizer=Optimizer("sgd", learning_rate=0.7, schedule="halving", constant=2 / 3, epoch=46_875, clip_norm=5.0),
        loop=Loop(steps=703_125, log_every=100, evaluate_every=50_000, sample_every=50_000, save_every=2_000),
        workdir="runs/seq2seq-sutskever",
    ),
    # Eight epochs of 4.5 million pairs at the full rate, then four, each at half the rate before it.
    "luong": Config(
        model=seq2seq.Config.luong(),
        data=dataclasses.replace(WMT, config="de-en", target="de", batch=128),
        optimizer=Optimizer("sgd", learning_rate=1.0, schedule="halving", constant=2 / 3, epoch=35_200, clip_norm=5.0),
        loop=Loop(steps=422_400, log_every=100, evaluate_every=35_200, sample_every=35_200, save_every=2_000),
        workdir="runs/seq2seq-luong",
    ),
    "tiny": Config(
        model=dataclasses.replace(seq2seq.Config.tiny(), vocabulary=100),
        data=Pairs(config="tiny", length=12, batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/seq2seq-tiny",
    ),
}


def run(config: Config) -> None:
    """Train one system, or each of several and compare them."""
    if not config.systems:
        return run_experiment(config, functools.partial(prepare, config))
    runs: dict[str, Config] = {system: alone(config, system) for system in config.systems}
    return run_several(
        runs,
        prepare,
        workdir=config.workdir,
        title=f"{config.data.name} {config.data.config}",
        plot=functools.partial(plot, runs),
    )


def alone(config: Config, system: System) -> Config:
    """The run of one of several systems."""
    model, workdir = dataclasses.replace(config.model, **OPTIONS[system]), str(Path(config.workdir) / system)
    return dataclasses.replace(config, model=model, systems=(), workdir=workdir)


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    pairs, language = config.data, languages(config)
    train = open_pairs(pairs, language, "train", keep=Path(config.workdir).expanduser() / "lengths.npz")
    tests = {place: open_pairs(those, language, those.test) for place, those in measured(pairs).items()}

    def batches(step: int) -> Any:
        calls = config.loop.steps_per_call
        return pair_batches(pairs, train, seed=config.seed, start_step=step, steps_per_call=calls, **this_process())

    found = {
        place: Evaluation(
            write,
            metrics(config, those, language, len(tests[place][0]["source"])),
            functools.partial(pair_tests, pairs, tests[place], **this_process()),
        )
        for place, those in measured(pairs).items()
    }
    return Experiment(
        learner(config),
        functools.partial(build, config),
        batches,
        found.pop(""),
        Sampling(look, first_pairs(tests[""], 4), functools.partial(draw, language)),
        lambda: {"the source itself": functools.partial(copy, config, language)},
        higher_is_better=METRICS,
        elsewhere=found,
        sources=(train, *tests.values()),
    )


def languages(config: Config) -> Language:
    """What makes ids of texts, kept in the work directory."""
    model, keep = config.model, Path(config.workdir).expanduser() / "vocabulary.json"
    sizes = (model.vocabulary,) if model.source_vocabulary is None else (model.source_vocabulary, model.vocabulary)
    return learn_language(config.data, sizes, keep=keep)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return dict(seq2seq.build(config.model, rngs))


def learner(config: Config) -> Learner:
    """How they are trained."""
    return minimise(seq2seq.loss, make_optimizer(config.optimizer, config.loop.steps))


def metrics(config: Config, pairs: Pairs, language: Language, length: int) -> Metric:
    """Of texts written freely from sources in rows of ``length``; of the right ones, foretold; and of attention, where
    it is known where it should be."""
    model = config.model
    texts = caption_metrics(
        references(pairs, language, pairs.test),
        language.words,
        length=length + model.extra,
        tokenization=language.name,
    )
    parts = {"texts": texts.only("exact", "bleu_4"), "nll": target_perplexity(tokenization=language.name)}
    if model.score != "none" and pairs.name == "transduction" and writes_backwards(pairs.config):
        parts["weights"] = average(
            ("anti_diagonal",),
            lambda weights, batch: {"anti_diagonal": anti_diagonal(weights, lengths(batch["source"]))},
        )
    return together(**parts)


def write(nets: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What is written, what the right words cost, in nats, and where each step looks while they are read."""
    logits, weights = nets["seq2seq"](batch["source"], batch["target"][:, :-1])
    costs = jnp.sum(token_cross_entropy(logits, batch["target"][:, 1:]), axis=1)
    return {"texts": seq2seq.predict(nets, dict(batch)), "nll": costs, "weights": weights}


def copy(config: Config, language: Language, nets: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The source itself, looked at everywhere alike; it foretells nothing."""
    seen = real(batch["source"]).astype(jnp.float32)
    even = seen / jnp.sum(seen, axis=1, keepdims=True)
    weights = jnp.repeat(even[:, None], batch["target"].shape[1] - 1, axis=1)
    written = copied(same_words(language), config.model.extra)(nets, batch)
    return {"texts": written, "nll": jnp.full(len(written), jnp.nan), "weights": weights}


def look(nets: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """What is written, and where each step looks before it writes, ``[B, T, S]``; nowhere without attention."""
    written = seq2seq.predict(nets, dict(batch))
    read = jnp.concatenate([jnp.full_like(written[:, :1], BOS), written[:, :-1]], axis=1)
    return written, nets["seq2seq"](batch["source"], read)[1]


def draw(
    language: Language, outputs: tuple[np.ndarray, np.ndarray], batch: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Alignments of the first four pairs: written tokens downwards, source tokens to the right."""
    figure = Figure(figsize=(9, 9), layout="constrained")
    panels = list(figure.subplots(2, 2).flat)
    for axes, written, weights, source in zip(panels, *outputs, batch["source"], strict=False):
        align(axes, language, source, written, weights)
    return {"alignment": picture(figure)}


def align(axes: Any, language: Language, source: np.ndarray, written: np.ndarray, weights: np.ndarray) -> None:
    """One matrix of attention."""
    columns = [*language.vocabularies[0].decode(source), "<eos>"]
    rows = [*language.vocabularies[1].decode(written), "<eos>"][: len(written)]
    axes.imshow(weights[: len(rows), 1 : 1 + len(columns)], vmin=0, vmax=1, cmap="magma")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize="small")
    axes.set_yticks(range(len(rows)), rows, fontsize="small")


def seen_first(outputs: tuple[np.ndarray, np.ndarray], batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `look` saw of the first pair."""
    return {name: array[0] for name, array in zip(("written", "weights"), outputs, strict=True)}


def plot(runs: Mapping[str, Config], lines: Mapping[str, list[dict[str, Any]]], found: Any) -> np.ndarray:
    """The losses, and one held-out string under every system that looks."""
    seeing = {system: one for system, one in runs.items() if one.model.score != "none"}
    figure = Figure(figsize=(5 * (1 + len(seeing)), 4.6), dpi=120, layout="constrained")
    left, *panels = figure.subplots(1, 1 + len(seeing), squeeze=False)[0]
    for system, all_lines in lines.items():
        train = [line for line in all_lines if line["kind"] == "train"]
        left.semilogy([line["step"] for line in train], [line["loss"] for line in train], label=system)
    left.set(xlabel="step", ylabel="training loss, nats per token")
    left.legend()
    for axes, (system, one) in zip(panels, seeing.items(), strict=True):
        _, nets = restore(one.workdir, sys.modules[__name__])
        language = languages(one)
        batch = first_pairs(open_pairs(one.data, language, one.data.test), 1)
        parts = split(nets)
        seen = compile_sampling(Sampling(look, batch, seen_first), parts.graphs)(parts.params, parts.rest)
        align(axes, language, batch["source"][0], seen["written"], seen["weights"])
        axes.set_title(system)
    return picture(figure)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
