"""Every system, with what the laws need to know about it. A new system adds one entry."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from seqjax.models.generation import dcgan, draw, mocogan
from seqjax.models.language import captioner, ctc, seq2seq, show_attend_tell, transformer
from seqjax.models.prediction import composite_lstm, convlstm, hierarchical, mcnet, storms, svg
from seqjax.models.recognition import differentiable_ram, gru_rcn, ram, vit
from seqjax.models.recurrent import memory_tasks
from seqjax.models.translation import cyclegan, discogan, pix2pix


class System(NamedTuple):
    """A file of ``seqjax.models``."""

    module: ModuleType
    """With ``Config``, ``build`` and the objectives."""
    losses: dict[str, tuple[str, ...]]
    """Objective by name, and the networks that it trains."""
    batch: Callable[[Any, int], dict[str, np.ndarray]]
    """``batch(config, size)``: random host data of the shape that the tiny configuration takes."""
    published: dict[int, dict[str, Any]]
    """Parameter counts from the paper or the released code, and the configuration of each."""
    falls: str = "loss/loss"
    """A metric that falls to a third of what it was when one batch is learned by heart."""
    rounding: float = 0.0
    """How far apart one device and four may be, beside a relative 2e-5."""
    by_parts: bool = True
    """Whether devices that see their own part of a batch alone make the step of one: not with statistics of the batch,
    nor with draws for each example."""
    twins: int = 0
    """Parameters of the tiny configuration whose gradient is that of others, which may travel once."""
    by_heart: int = 60
    """Steps in which one batch is learned."""
    chosen: bool = False
    """Whether the network chooses by chance, so that rounding turns a choice and the curve after it."""


def batches(name: str, config: Any, size: int, count: int) -> list[dict[str, np.ndarray]]:
    """So many batches of a system: the first, and others that are moved within rows of more than one number."""

    def moved(k: int, x: np.ndarray) -> np.ndarray:
        return np.roll(x, k, axis=1) if x.ndim > 1 else x

    batch = SYSTEMS[name].batch(config, size)
    return [{key: moved(k, x) for key, x in batch.items()} for k in range(count)]


def clips(config: Any, size: int) -> dict[str, np.ndarray]:
    """Bright squares that move one pixel per frame, so that there is something to learn."""
    frames, side = config.context + config.future, 8
    video = np.zeros((size, frames, side, side, config.channels), np.uint8)
    for b in range(size):
        for t in range(frames):
            video[b, t, b % 4 : b % 4 + 3, (t + b) % 6 : (t + b) % 6 + 3] = 255
    return {"video": video}


def ways_to_go(config: Any, size: int) -> dict[str, np.ndarray]:
    """Bright squares that go right, down, left or up, and which way that is."""
    video = np.zeros((size, 3, config.size, config.size, config.channels), np.uint8)
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    for b in range(size):
        for t in range(3):
            row, column = (2 + b // 4 + (t - 1) * step for step in steps[b % 4])
            video[b, t, row : row + 3, column : column + 3] = 255
    return {"video": video, "label": np.arange(size) % 4}


def labelled_clips(config: Any, size: int) -> dict[str, np.ndarray]:
    """Squares that move down or to the right, and which of both."""
    video, label = np.zeros((size, config.frames, 8, 8, config.channels), np.uint8), np.arange(size) % 2
    for b in range(size):
        for t in range(config.frames):
            places = (t + b) % 6, b % 5
            row, column = places if label[b] == 0 else places[::-1]
            video[b, t, row : row + 3, column : column + 3] = 255
    return {"video": video, "label": label}


def storm_clips(config: Any, size: int) -> dict[str, np.ndarray]:
    """Lows that move one pixel per frame, of which every other one turns and is marked in the density."""
    shape = (size, config.context + config.future, 8, 8)
    rng = np.random.default_rng(0)
    fields, density = rng.uniform(0.4, 0.6, (*shape, config.channels)).astype(np.float32), np.zeros(shape, np.float32)
    for b in range(size):
        for t in range(shape[1]):
            low = (b, t, slice(b % 4, b % 4 + 3), slice((t + b) % 5, (t + b) % 5 + 3))
            fields[low][..., 0] -= 0.3
            fields[low][..., 1] += 0.3 * (b % 2)
            density[low] = b % 2
    return {"fields": fields, "density": density[..., None]}


def posed_pairs(config: Any, size: int) -> dict[str, np.ndarray]:
    """Two frames, each with a bright square at a wrist, which moves, on a ground of greys that differ.

    Of equal ones rounding would decide which is the largest."""
    rng = np.random.default_rng(0)
    joints = np.broadcast_to(rng.uniform(4, 12, (size, 1, 1, 13, 2)), (size, 2, 1, 13, 2)).astype(np.float32).copy()
    ground = rng.integers(50, 70, (size, 1, config.size, config.size, config.channels))
    video = np.repeat(ground, 2, axis=1).astype(np.uint8)
    for b in range(size):
        for t in range(2):
            row, column = 2 + b, 3 + (b + 5 * t) % 10
            joints[b, t, 0, 5] = row, column
            video[b, t, row - 1 : row + 2, column - 1 : column + 2] = 250
    return {"video": video, "joints": joints, "visible": np.ones((size, 2, 1, 13), bool)}


def marked_numbers(config: Any, size: int) -> dict[str, np.ndarray]:
    """Two of six numbers are marked; the target is their sum."""
    rng = np.random.default_rng(0)
    numbers, marks = rng.random((size, 6)), np.zeros((size, 6))
    for b in range(size):
        marks[b, [b % 3, 3 + b % 2]] = 1
    targets = (numbers * marks).sum(axis=1, keepdims=True)
    return {"inputs": np.float32(np.stack([numbers, marks], axis=-1)), "targets": np.float32(targets)}


def digits_backwards(config: Any, size: int) -> dict[str, np.ndarray]:
    """Rows of BOS, three digits, EOS and padding, to be written backwards."""
    source = np.array([[1, 4 + b % 10, 4 + (3 * b + 1) % 10, 4 + b // 2, 2, 0] for b in range(size)], np.int32)
    target = source.copy()
    target[:, 1:4] = source[:, 3:0:-1]
    return {"source": source, "target": target}


def sounds(config: Any, size: int) -> dict[str, np.ndarray]:
    """Two or three labels, each heard for two frames of its own band, and silence."""
    features, labels = np.zeros((size, 9, config.inputs), np.float32), np.zeros((size, 3), np.int32)
    for b in range(size):
        said = [1 + (b + k * (1 + b % 3)) % config.labels for k in range(2 + b % 2)]
        labels[b, : len(said)] = said
        for k, label in enumerate(said):
            features[b, 1 + 2 * k : 3 + 2 * k, 2 * label] = 3
    return {"features": features, "labels": labels, "length": np.full(size, 9, np.int32)}


def stills(channels: dict[str, int], side: int) -> Callable[[Any, int], dict[str, np.ndarray]]:
    """Images by name, each a bright square on dark ground."""

    def batch(config: Any, size: int) -> dict[str, np.ndarray]:
        images = {name: np.zeros((size, side, side, depth), np.uint8) for name, depth in channels.items()}
        for k, image in enumerate(images.values()):
            for b in range(size):
                image[b, (b + k) % 4 : (b + k) % 4 + 3, 2 * b % 5 : 2 * b % 5 + 3] = 255 - 40 * k
        return images

    return batch


def labelled(side: int) -> Callable[[Any, int], dict[str, np.ndarray]]:
    """A bright square and the number that tells where it is."""

    def batch(config: Any, size: int) -> dict[str, np.ndarray]:
        return stills({"image": 1}, side)(config, size) | {"label": np.arange(size) % 4}

    return batch


def told_images(config: Any, size: int) -> dict[str, np.ndarray]:
    """Images of noise, each with two words of its own."""
    rng, side = np.random.default_rng(0), config.encoder.size
    captions = np.zeros((size, config.length + 1), np.int32)
    captions[:, :4] = [(1, 4 + b % 5, 4 + b // 2 % 4, 2) for b in range(size)]
    return {"image": rng.integers(256, size=(size, side, side, 3), dtype=np.uint8), "captions": captions}


GRU_RCN = sum(
    (side**2 * 3 * (c + d) + 4) * d
    for side, c, d in [(3, 128, 64), (3, 256, 128), (3, 512, 256), (3, 512, 256), (1, 4096, 512)]
)
HEADS = (64 + 128 + 256 + 256 + 512) * 101
# Of MoCoGAN: the generator of codes of 50 and 10 numbers, patches of frames, clips but for the last layer.
GENERATED = 16 * (60 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (512 + 256 + 128 + 64)
PATCHES = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256) + 2 * (128 + 256)
CLIPS = 64 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 2 * (128 + 256 + 512)

SYSTEMS = {
    "generation/dcgan": System(
        dcgan,
        losses={"loss_discriminator": ("discriminator",), "loss_generator": ("generator",)},
        batch=stills({"image": 1}, 8),
        # The Torch version at 64x64, and the paper's: by hand from the layer tables, normalisations two a channel.
        falls="loss_discriminator/loss",
        published={3_576_704 + 2_765_568: {}, 18_855_040 + 17_232_768: {"base": 128, "kernel": 5}},
        by_parts=False,
    ),
    "generation/draw": System(
        draw,
        losses={"loss": ("draw",)},
        batch=stills({"image": 1}, 8),
        falls="loss/reconstruction",
        by_heart=120,
        # No paper prints them. By hand: two LSTMs, 4 · 256 (inputs + 256 + 1), and their first states; 2 · 100 numbers
        # of the posterior; what is written, windows of five numbers, the first canvas.
        published={
            4 * 256 * (2 * 2 * 2 + 256 + 256 + 1)
            + 4 * 256 * (100 + 256 + 1)
            + 257 * (2 * 100 + 5 * 5 + 5 + 5)
            + 4 * 256
            + 28 * 28: {},
            4 * 256 * (2 * 784 + 256 + 256 + 1)
            + 4 * 256 * (100 + 256 + 1)
            + 257 * (2 * 100 + 784)
            + 4 * 256
            + 28 * 28: {"attention": False},
        },
        by_parts=False,
    ),
    "generation/mocogan": System(
        mocogan,
        losses={
            "loss_image_discriminator": ("image_discriminator",),
            "loss_video_discriminator": ("video_discriminator",),
            "loss_generator": ("motion", "generator"),
        },
        batch=labelled_clips,
        falls="loss_video_discriminator/loss",
        # No paper prints them. By hand, normalisations two a channel: the GRU, whose candidate has a bias more, the
        # generator, the discriminators of frames and of clips; then without categories, frames judged as a whole; the
        # category in the generator, as the released code has it; without a discriminator of frames.
        published={
            (3 * 10 * (10 + 6 + 10 + 1) + 10) + GENERATED + PATCHES + CLIPS + 64 * 512 * 7: {},
            (3 * 10 * (10 + 10 + 1) + 10)
            + (GENERATED + PATCHES + 16 * (256 * 512 + 512 - 256) + 2 * 512)
            + (CLIPS + 64 * 512): {"categories": 0, "image_discriminator": "global"},
            (3 * 10 * (10 + 10 + 1) + 10) + GENERATED + 16 * 6 * 512 + PATCHES + CLIPS + 64 * 512 * 7: {
                "category_to": "gen"
            },
            (3 * 10 * (10 + 6 + 10 + 1) + 10) + GENERATED + CLIPS + 64 * 512 * 7: {"image_discriminator": "none"},
        },
        by_parts=False,
    ),
    "translation/pix2pix": System(
        pix2pix,
        losses={"loss_discriminator": ("discriminator",), "loss_generator": ("generator",)},
        batch=stills({"input": 1, "target": 3}, 8),
        falls="loss_generator/distance",
        # The U-Net and the 70x70 discriminator of the released code, and its residual generators.
        published={
            54_413_955 + 2_768_705: {},
            11_383_427 + 2_768_705: {"generator": "residual", "downs": 2},
        },
        by_parts=False,
    ),
    "translation/cyclegan": System(
        cyclegan,
        losses={"loss_generators": ("to_a", "to_b"), "loss_discriminators": ("of_a", "of_b")},
        batch=stills({"a": 3, "b": 3}, 8),
        falls="loss_generators/cycle",
        # Residual generators of 9 and of 6 blocks and the discriminator of the released code, two of each.
        published={2 * (11_378_179 + 2_764_737): {}, 2 * (7_837_699 + 2_764_737): {"blocks": 6, "size": 128}},
        by_parts=False,
    ),
    "translation/discogan": System(
        discogan,
        losses={"loss_generators": ("to_a", "to_b"), "loss_discriminators": ("of_a", "of_b")},
        batch=stills({"a": 3, "b": 3}, 8),
        falls="loss_generators/reconstruction",
        rounding=1e-6,
        # No one prints them. By hand: four 4x4 convolutions of 64 to 512 features, their mirror, normalisations.
        published={2 * (5_513_856 + 2_765_568): {}},
        by_parts=False,
    ),
    "language/captioner": System(
        captioner,
        losses={"loss": ("encoder", "decoder")},
        batch=told_images,
        # No paper prints them. VGG-16 without its classes; then by hand words, recurrent layer, image, output: Karpathy
        # and Fei-Fei's network, and Show and Tell's.
        published={
            134_260_544 + 256 * 8_800 + 256 * (256 + 256 + 1) + 4096 * 256 + 257 * 8_800: {},
            134_260_544 + 512 * 9_000 + 4 * 512 * (512 + 512 + 1) + 4096 * 512 + 513 * 9_000: {
                **{"embedding": 512, "features": 512, "cell": "lstm", "image_feed": "word", "vocabulary": 9_000}
            },
        },
    ),
    "language/show_attend_tell": System(
        show_attend_tell,
        losses={"loss": ("encoder", "decoder")},
        batch=told_images,
        falls="loss/nll",
        # VGG-19's convolutions, and by hand from the arrays of the released code for COCO, in its order: words, first
        # states, LSTM (words, states, context), score, its deeper layer, gate, output layers. It has 513 more, which
        # change nothing: a second bias of the output's hidden layer and a constant of the score.
        published={
            20_024_384
            + (5_120_000 + 262_656 + 2 * 923_400 + 3_686_400 + 12_960_000 + 7_200 + 3_686_400)
            + (921_600 + 262_144 + 2 * 512 + 262_656 + 1_801 + 922_112 + 262_144 + 5_130_000): {},
        },
    ),
    "language/transformer": System(
        transformer,
        losses={"loss": ("transformer",)},
        batch=digits_backwards,
        # The paper prints 65 and 213 million. By hand: embeddings, then attention, network and norms of each block.
        published={
            37_000 * 512 + 6 * (4 * 512**2 + 2_099_712 + 2_048) + 6 * (8 * 512**2 + 2_099_712 + 3_072): {},
            37_000 * 1024 + 6 * (4 * 1024**2 + 8_393_728 + 4_096) + 6 * (8 * 1024**2 + 8_393_728 + 6_144): vars(
                transformer.Config.big()
            ),
        },
        falls="loss/nll",
        by_parts=False,  # a mean over tokens is not that of the parts' means
    ),
    "language/seq2seq": System(
        seq2seq,
        losses={"loss": ("seq2seq",)},
        batch=digits_backwards,
        # Sutskever et al. print 384 million. The others by hand: embeddings, encoder, decoder, attention, readout.
        published={
            384_112_000: vars(seq2seq.Config.sutskever()),
            37_200_000 + 9_728_000 + 10_864_000 + 1_001_000 + 3_002_000 + 3_621_000 + 15_030_000: {},
            100_000_000 + 32_016_000 + 36_016_000 + 2_001_000 + 2_000_000 + 50_050_000: vars(seq2seq.Config.luong()),
        },
        by_parts=False,  # as the Transformer
    ),
    "language/ctc": System(
        ctc,
        losses={"loss": ("recogniser",)},
        batch=sounds,
        # Graves et al. 2006, section 5.2.
        published={114_662: {}},
    ),
    "prediction/convlstm": System(
        convlstm,
        losses={"loss": ("forecaster",)},
        batch=clips,
        # Shi et al. 2015, Table 1 (Moving MNIST): the number of parameters column.
        published={
            142_667_776: {"patch": 64, "kernel": 1, "features": (2048, 2048), "readout": "last"},
            13_524_496: {"features": (256,)},
            10_042_896: {"features": (128, 128)},
            7_585_296: {},
            11_550_224: {"features": (128, 128), "kernel": 1, "input_kernel": 9},
            8_830_480: {"kernel": 1, "input_kernel": 9},
        },
    ),
    "prediction/composite_lstm": System(
        composite_lstm,
        losses={"loss": ("encoder", "reconstruction", "future")},
        batch=clips,
        by_heart=120,
        # Shi et al. 2015, Table 1, print that of their baseline, a future predictor of two layers. By hand, for the
        # models of the released code, 4 H (D + H + 1) + 3 H weights of an LSTM that reads D numbers (none: D = 0) and
        # D (H + 1) of a readout: frames, patches, two layers; then percepts with decoders that read nothing.
        published={
            142_667_776: {"features": (2048, 2048), "decoders": "future", "conditional": "none"},
            3 * (8_192 * 6_145 + 6_144) + 2 * 4_096 * 2_049: {"conditional": "both"},
            3 * (8_192 * 5_121 + 6_144) + 2 * 3_072 * 2_049: {
                **{"size": 32, "channels": 3, "error": "squared", "conditional": "both"}
            },
            3 * (8_192 * (6_145 + 4_097) + 2 * 6_144) + 2 * 4_096 * 2_049: {
                **{"features": (2048, 2048), "conditional": "both"}
            },
            8_192 * (6_145 + 2 * 2_049) + 3 * 6_144 + 2 * 4_096 * 2_049: {
                **{"percept": 4_096, "error": "squared", "conditional": "none"}
            },
            8_192 * (6_145 + 4_097 + 2 * (2_049 + 4_097)) + 6 * 6_144 + 2 * 4_096 * 2_049: {
                **{"percept": 4_096, "features": (2048, 2048), "error": "squared", "conditional": "none"}
            },
        },
    ),
    "prediction/mcnet": System(
        mcnet,
        losses={"loss_discriminator": ("discriminator",), "loss_generator": ("predictor",)},
        batch=clips,
        falls="loss_generator/pixels",
        # No paper prints them. By hand from the released code: motion, content, ConvLSTM, combination, residual maps,
        # decoder; then the discriminator of 20 frames, or of 5 in colour, normalisations two a channel.
        published={
            (25 + 1) * 64
            + (25 * 64 + 1) * 128
            + (49 * 128 + 1) * 256
            + sum((9 * a + 1) * b for a, b in [(c, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)])
            + (9 * 256 + 1) * 256
            + (9 * 512 + 1) * 1024
            + sum((9 * a + 1) * b for a, b in [(512, 256), (256, 128), (128, 256)])
            + sum((9 * 2 * d + 1) * d + (9 * d + 1) * d for d in (64, 128, 256))
            + sum((9 * a + 1) * b for a, b in [(256, 256)] * 2 + [(256, 128), (128, 128), (128, 64), (64, 64), (64, c)])
            + (25 * frames * c + 1) * 64
            + 25 * (64 * 128 + 128 * 256 + 256 * 512)
            + 2 * (128 + 256 + 512)
            + side * 512
            + 1: options
            for c, frames, side, options in (
                (1, 20, 8 * 8, {}),
                (3, 5, 15 * 20, {"channels": 3, "context": 4, "future": 1, "height": 240, "width": 320}),
            )
        },
        by_parts=False,
    ),
    "prediction/hierarchical": System(
        hierarchical,
        losses={"loss_generator": ("generator",), "loss_discriminator": ("discriminator",)},
        batch=posed_pairs,
        falls="loss_generator/distance",
        # By hand from the released code's layers, 3x3 with biases: two encoders, of 3 and of 48 channels, and the
        # decoder; of the discriminator 5x5, biases where nothing is normalised, two numbers a normalised feature.
        published={
            (9 * (3 + 48) * 64 + 2 * (9 * (64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 2 * 256 * 256) + 1_152))
            + (9 * (2 * 256 * 256 + 256 * 128 + 128 * 128 + 128 * 64 + 64 * 64 + 64 * 3) + 899)
            + (25 * (51 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 2 * 896 + 8 * 8 * 512 + 1): {},
        },
        by_parts=False,
        by_heart=150,
    ),
    "prediction/storms": System(
        storms,
        losses={"loss": ("predictor",)},
        batch=storm_clips,
        # No paper prints them. By hand: to track, two convolutions, two ConvLSTMs without peepholes, the way back; to
        # forecast, on patches of 4 x 4, both stacks with three peepholes a channel, and the 1x1 readout.
        published={
            (9 * 6 + 1) * 32 + (9 * 32 + 1) * 64 + 2 * (9 * (64 + 64) + 1) * 256 + 9 * (32 + 64) + 1: {},
            (9 * (16 + 64) + 9 * 64 + 2 * 9 * (64 + 64) + 4 * (1 + 3 / 4)) * 256 + (128 + 1) * 16: {"task": "forecast"},
        },
    ),
    "prediction/svg": System(
        svg,
        losses={"loss": ("encoder", "decoder", "predictor", "posterior", "prior")},
        batch=clips,
        # No paper prints them. By hand from the layer tables, normalisations two a channel: encoder, decoder, predictor
        # and two Gaussian LSTMs, one, or none, and no latents then; SM-MNIST, and colours of BAIR through VGG.
        published={
            sum(16 * c * d + 2 * d for c, d in [(1, 64), (64, 128), (128, 256), (256, 512), (512, 128)])
            + sum(16 * c * d + 2 * d for c, d in [(128, 512), (1024, 256), (512, 128), (256, 64)])
            + (16 * 128 + 1)
            + ((129 + min(1, count) * 10) * 256 + 2 * 1024 * (256 + 256 + 1) + 257 * 128)
            + count * (129 * 256 + 1024 * (256 + 256 + 1) + 257 * 20): {"prior": prior}
            for count, prior in ((2, "learned"), (1, "fixed"), (0, "none"))
        }
        | {
            9 * (3 * 64 + 64**2 + 64 * 128 + 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512 + 2 * 512**2)
            + (16 * 512 * 128 + 2 * (2 * 64 + 2 * 128 + 3 * 256 + 3 * 512 + 128))
            + (16 * 128 * 512 + 9 * 512 * (1024 + 512 + 256) + 9 * 256 * (512 + 256 + 128) + 9 * 128 * (256 + 64))
            + (9 * 64 * 128 + 9 * 64 * 3 + 3 + 2 * (3 * 512 + 256 + 2 * 256 + 2 * 128 + 2 * 64))
            + (193 * 256 + 2 * 1024 * (256 + 256 + 1) + 257 * 128)
            + 2 * (129 * 256 + 1024 * (256 + 256 + 1) + 257 * 128): {"backbone": "vgg", "channels": 3, "latent": 64}
        },
        by_parts=False,
    ),
    "recognition/gru_rcn": System(
        gru_rcn,
        losses={"loss": ("backbone", "recogniser")},
        batch=ways_to_go,
        falls="loss/nll",
        # No paper prints them. VGG-16 without its classes; by hand each level's kernels from C percepts and D states to
        # three gates, with a bias for each and a second for the candidate, and the classifiers; what stacking adds,
        # from the E states below to two gates; everything but VGG-16 twice, but for the classifiers' biases.
        published={
            134_260_544 + GRU_RCN + HEADS + 5 * 101: {},
            134_260_544 + GRU_RCN + HEADS + 5 * 101 + 2 * 9 * (64 * 128 + 128 * 256 + 256 * 256) + 2 * 256 * 512: {
                "stacked": True
            },
            134_260_544 + 2 * (GRU_RCN + HEADS) + 5 * 101: {"bidirectional": True},
        },
        twins=3 + 5,  # both biases of a candidate
    ),
    "recognition/differentiable_ram": System(
        differentiable_ram,
        losses={"loss": ("recognizer",)},
        batch=labelled(8),
        # No paper prints it. By hand: an LSTM on what 12 x 12 filters see, the five numbers of a window, classes.
        published={4 * 256 * (12 * 12 + 256 + 1) + 257 * 5 + 257 * 10: {}},
    ),
    "recognition/ram": System(
        ram,
        losses={"loss": ("recognizer",)},
        batch=labelled(8),
        chosen=True,
        falls="loss/cross_entropy",
        # No paper prints them. By hand: what and where, a glimpse of 256, the core, the next place, classes, baseline.
        published={
            (3 * 144 + 1) * 128 + 3 * 128 + 2 * 129 * 256 + 513 * 256 + 257 * 128 + 129 * 2 + 257 * 10 + 257: {},
            (64 + 1) * 128 + 3 * 128 + 2 * 129 * 256 + 513 * 256 + 257 * 2 + 257 * 10 + 257: {
                "patch": 8,
                "scales": 1,
                "locator": "linear",
            },
        },
        by_parts=False,
    ),
    "recognition/vit": System(
        vit,
        losses={"loss": ("classifier",)},
        batch=labelled(8),
        twins=8,  # the class token and its position are added
        # Dosovitskiy et al. 2021, Table 1, and its two smaller successors, to the parameter: as PyTorch's torchvision
        # documents vit_b_16, vit_l_16 and vit_h_14, and timm the patch16_224 networks named tiny and small.
        published={
            86_567_656: {},
            304_326_632: vit.SIZES["L"],
            632_045_800: {"patch": 14} | vit.SIZES["H"],
            5_717_416: vit.SIZES["Ti"],
            22_050_664: vit.SIZES["S"],
        },
    ),
    "recurrent/memory_tasks": System(
        memory_tasks,
        losses={"loss": ("reader",)},
        batch=marked_numbers,
        # No paper prints the counts of these networks. By hand, gates · D (C + D + 1) + readout; torch's second bias of
        # the candidate (D) is part of its GRU, and so of ours.
        published={
            4 * 128 * (2 + 128 + 1) + 128 + 1: {},
            64 * (2 + 64 + 1) + 64 + 1: {"cell": "rnn", "features": 64},
            3 * 64 * (2 + 64 + 1) + 64 + 64 + 1: {"cell": "gru", "features": 64},
            4 * 64 * (10 + 64 + 1) + 4 * 64 * (64 + 64 + 1) + 64 * 9 + 9: {"task": "copy", "features": 64, "layers": 2},
        },
    ),
}
