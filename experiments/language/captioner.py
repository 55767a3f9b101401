"""Captions by a recurrent network that is given the image once (Karpathy and Fei-Fei, 2015; Show and Tell, 2015).

    python -m experiments.language.captioner --workdir runs/captioner                 # cpu: minutes on two cores
    python -m experiments.language.captioner paper --vgg vgg16-397923af.pth --workdir runs/captioner-paper
    python -m experiments.language.captioner show_and_tell --vgg vgg16-397923af.pth --workdir runs/show_and_tell-paper

The same command starts or resumes. `cpu` trains small networks of both papers on scenes of two objects, and the first
of them once more on images of other scenes, one after another, each in a directory of its own, and sets them side by
side. `paper` is neuraltalk's network on Flickr8k (put the files where the error message says), `show_and_tell` that of
Vinyals et al. on COCO; both on VGG-16's published weights, which stay as they are (give their file). `tiny` takes
seconds and is what the tests run. The words of the training split stay in the work directory, as vocabulary.json.

Held out are other scenes, of the kinds of object known from training. The report has BLEU, ROUGE-L and CIDEr-D of the
captions written, the share that is one of the references, and the nats per caption with which the true one is foretold,
beside one caption for all, and that of the training picture with the nearest pixels. The same is measured on the split
`novel`, in each of whose scenes one object joins a colour and a shape that training shows with others alone. `ranked`
is Show and Tell's other measure: of the first held-out images and their captions, by log p(caption | image), how high
an image's caption stands among all captions (`text_r1` to `text_median`) and a caption's image among all images. A
caption is right for every image of whose references it is one, which two scenes may share; equal scores count half.
report.json has the recalls of scores without meaning; the baselines score a caption by the words it shares with the one
they tell.

Measured: `cpu`, seed 0, on one core, all three in 1 min 58 s: Karpathy and Fei-Fei's network 99.8 % of the held-out
captions right, BLEU-4 0.9995, 0.017 nats; Show and Tell 99.1 %, 0.9971, 0.044 nats; without the image 0.1 %, 5.95 nats;
nearest picture 59.1 %. New kinds of object are beyond all of them: of `novel`, Karpathy and Fei-Fei's network has 2.7 %
right (BLEU-4 0.760, 10.0 nats), Show and Tell 0.4 % (0.730, 9.87 nats), the nearest picture none (0.722). Of 100 scenes
both find every caption and every image first (`rsum` 600); the nearest picture 59 % of the captions and 53 % of the
images (508); blind, 1 % and none (17), for it gives all images one likelihood and so the middle rank, where chance has
1.4 % and, among the ten first, 14 %. By Muon: with Adam, in twice the steps, Show and Tell stayed blind. `paper` and
`show_and_tell` have not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from seqjax.convert.vgg import load_published
from seqjax.data.captions import (
    WRITTEN,
    Captioned,
    Gallery,
    caption_tests,
    captioned,
    choice,
    gallery,
    open_split,
    references,
    some,
    vocabulary,
)
from seqjax.data.pipeline import train_batches
from seqjax.data.source import Source
from seqjax.data.text import CAPTIONS, EOS, SPECIAL, Vocabulary
from seqjax.metrics import baselines
from seqjax.metrics.average import average
from seqjax.metrics.captions import caption_metrics, for_tables
from seqjax.metrics.metric import Metric, together
from seqjax.metrics.retrieval import RECALLS, scored_retrieval
from seqjax.models.language import captioner
from seqjax.nn.image_encoder import EncoderConfig
from seqjax.train.annotate import captioned as with_captions
from seqjax.train.command import main
from seqjax.train.comparison import run_several, training_curves
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, Player, alternate, minimise

System = Literal["karpathy", "show_and_tell", "blind"]
SMALL = captioner.Config(
    encoder=EncoderConfig(net="conv", size=32),
    vocabulary=40,
    length=12,
    embedding=32,
    features=128,
    cell="rnn",
    dropout=0.0,
    initial="lecun",
)
"""Karpathy and Fei-Fei's network for scenes, with tanh for rectified units."""
SYSTEMS: dict[System, dict[str, Any]] = {
    "karpathy": {},
    "show_and_tell": {"cell": "lstm", "image_feed": "word"},
    "blind": {},
}
"""What is changed in the model for each."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: captioner.Config = SMALL
    """The networks."""
    data: Captioned = Captioned()
    """The images and captions."""
    vgg: str | None = None
    """File with VGG's published weights, for a model that reads images by it."""
    frozen: bool = False
    """Whether the network that reads the image stays as it is."""
    frequencies: bool = True
    """Whether the output's bias starts at the words' frequencies."""
    blind: bool = False
    """Whether each caption is told of the image of another: what can be had without looking."""
    optimizer: Optimizer = Optimizer("muon", learning_rate=4e-3, schedule="cosine", clip_norm=5.0)
    """The optimiser."""
    loop: Loop = Loop(steps=1000, log_every=20, save_every=250)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters, the order of the images and all that is drawn."""
    systems: tuple[System, ...] = ()
    """Systems to train one after another, each in workdir/<system>; blind is the first without its images."""
    workdir: str = "runs/captioner"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PRESETS = {
    "cpu": Config(data=Captioned(novel="novel", ranked=100), systems=("karpathy", "show_and_tell", "blind")),
    "paper": Config(
        model=captioner.Config(),
        data=Captioned(
            name="karpathy_captions",
            config="flickr8k",
            ranked=1000,
            said="any",
            least=5,
            side=224,
            in_memory=False,
            batch=100,
        ),
        frozen=True,
        # The code divides its penalty of 1e-8, like the costs, by the number of images of a batch.
        optimizer=Optimizer("rmsprop", learning_rate=1e-3, decay=0.999, weight_decay=1e-10, clip_values=5.0),
        loop=Loop(steps=15_000, log_every=50, evaluate_every=3_000, sample_every=3_000, save_every=1_000),
        workdir="runs/captioner-paper",
    ),
    "show_and_tell": Config(
        model=captioner.Config.show_and_tell(),
        data=Captioned(
            name="coco_captions",
            config=None,
            train="train+restval",
            ranked=1000,
            said="any",
            least=5,
            side=224,
            in_memory=False,
        ),
        frozen=True,
        frequencies=False,
        optimizer=Optimizer("sgd", learning_rate=2.0, clip_norm=5.0),
        loop=Loop(steps=200_000, log_every=100, evaluate_every=20_000, sample_every=20_000, save_every=2_000),
        workdir="runs/show_and_tell-paper",
    ),
    "tiny": Config(
        model=dataclasses.replace(
            captioner.Config.tiny(),
            encoder=EncoderConfig(net="conv", size=32, widths=(4, 4, 6)),
            vocabulary=40,
            length=8,
        ),
        data=Captioned(config="tiny", novel="novel", ranked=8, batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/captioner-tiny",
    ),
}


def run(config: Config) -> None:
    """Train one network, or each of several and compare them."""
    if not config.systems:
        return run_experiment(config, functools.partial(prepare, config))
    runs = {system: alone(config, system) for system in config.systems}
    return run_several(
        runs,
        prepare,
        workdir=config.workdir,
        title="Captions of held-out images",
        plot=functools.partial(training_curves, curve="nll", label="cost of a caption in training, nats"),
    )


def alone(config: Config, system: System) -> Config:
    """The run of one of several systems."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **SYSTEMS[system]),
        blind=system == "blind",
        systems=(),
        workdir=str(Path(config.workdir) / system),
    )


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    data, model = config.data, config.model
    keep = Path(config.workdir).expanduser() / "vocabulary.json"
    known = vocabulary(data, model.vocabulary - len(SPECIAL), keep=keep)
    splits = {split: open_split(data, split) for split in (data.train, data.test, data.novel) if split}
    rows = {split: captioned(data, source, known, model.length + 1) for split, source in splits.items()}

    among = gallery(data, splits[data.test], rows[data.test]) if data.ranked else None

    def evaluation(split: str) -> Evaluation:
        return Evaluation(
            told(config, captioner.predict),
            metrics(config, known, open_split(data, split, only=WRITTEN)),
            lambda: caption_tests(data, rows[split], **this_process()),
        )

    return Experiment(
        learner(config),
        functools.partial(build, config, counts=counts(config, known, len(rows[data.train]))),
        functools.partial(batches, config, rows[data.train]),
        evaluation(data.test),
        Sampling(told(config, captioner.describe), some(rows[data.test], 12), functools.partial(draw, known)),
        functools.partial(predictions, config, rows[data.train], among),
        higher_is_better=("bleu", "bleu_4", "rouge_l", "cider_d", "exact", *RECALLS),
        elsewhere={
            **({data.novel: evaluation(data.novel)} if data.novel else {}),
            **({"ranked": ranking(config, among)} if among else {}),
        },
        sources=rows.values(),
    )


def told(config: Config, function: Any) -> Any:
    """A function of networks and a batch, as it is or with the images of others."""
    return baselines.blind(function) if config.blind else function


def counts(config: Config, known: Vocabulary, images: int) -> np.ndarray | None:
    """How often each id occurs in the captions of a training split of so many images, if that matters."""
    if not config.frequencies:
        return None
    found = np.zeros(config.model.vocabulary, np.float32)
    found[EOS] = 5 * images
    found[len(SPECIAL) : len(known)] = known.counts
    return found


def build(config: Config, rngs: nnx.Rngs, *, counts: np.ndarray | None = None) -> dict[str, nnx.Module]:
    """The networks, VGG with its published weights."""
    nets = captioner.build(config.model, rngs, counts=None if counts is None else jnp.asarray(counts))
    load_published(nets["encoder"], config.vgg, frozen=config.frozen)
    return nets


def learner(config: Config) -> Learner:
    """How they are trained."""
    loss, tx = told(config, captioner.loss), make_optimizer(config.optimizer, config.loop.steps)
    return alternate({"decoder": Player(loss, ("decoder",), tx)}) if config.frozen else minimise(loss, tx)


def batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled images, one caption each, from a step on, this process's part of each batch."""
    return train_batches(
        source,
        batch_size=config.data.batch,
        seed=config.seed,
        start_step=step,
        steps_per_call=config.loop.steps_per_call,
        **choice(config.data),
        **this_process(),
    )


def metrics(config: Config, known: Vocabulary, written: Source) -> Metric:
    """Of captions written freely, and of the true one, foretold."""
    told = references(written)
    return together(
        captions=for_tables(
            caption_metrics(told, known.decode, length=config.model.length, tokenization=CAPTIONS.name)
        ),
        nll=average(("nll",), lambda nll, _: {"nll": nll}),
    )


def ranking(config: Config, among: Gallery) -> Evaluation:
    """How well images and captions are found by one another, by likelihood."""

    def scores(nets: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
        return {"scores": captioner.likelihoods(nets, dict(batch), jnp.asarray(among.captions))}

    metric = together(scores=scored_retrieval(among.right))
    return Evaluation(told(config, scores), metric, lambda: caption_tests(config.data, among.images, **this_process()))


def predictions(config: Config, train: Source, among: Gallery | None) -> dict[str, Predict]:
    """Captions that need no training."""
    if not config.data.in_memory:
        return {}
    known = some(train, len(train))

    def answer(ids: Array) -> dict[str, Array]:
        found = {"captions": ids[:, 1:], "nll": jnp.full(len(ids), jnp.nan)}
        return found if among is None else {**found, "scores": baselines.words_shared(ids, among.captions)}

    ids = baselines.captions(known["image"], known["captions"])
    return {name: lambda _, batch, told=told: answer(told(batch["image"])) for name, told in ids.items()}


def draw(known: Vocabulary, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Captions under their images."""
    captions = [CAPTIONS.join(known.decode(ids)) for ids in outputs["captions"]]
    return {"captions": with_captions(batch["image"], captions)}


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
