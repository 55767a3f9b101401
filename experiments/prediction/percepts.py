"""Features of the frames of any clips by a frozen network ("percepts"), a file for each clip.

    python -m experiments.prediction.percepts        # moving digits, by a network trained on the spot: minutes
    python -m experiments.prediction.percepts vgg --vgg vgg16-397923af.pth               # UCF-101, by VGG-16's fc6

They are what the set `folder_of_features` is prepared from, on which `experiments.prediction.composite_lstm percepts`
and `paper_percepts` are trained. The same command starts or goes on where an earlier one ended. `network.json` beside
the folders of the splits says whose features they are.

Without VGG's weights the network is a small one that learns here to tell the clips' labels, one each, from single
frames: `metrics.digits_cnn`, of whose hidden layer the 64 features are.
"""

import dataclasses
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from seqjax.convert.vgg import load_vgg
from seqjax.data.clips import Clips, open_split
from seqjax.data.folder_of_features import folder_in
from seqjax.data.source import Source
from seqjax.errors import InputError
from seqjax.files import replace_file
from seqjax.metrics.digits_cnn import train_digits_cnn
from seqjax.metrics.features import FeatureNet, Features, extract, hash_weights
from seqjax.nn.split import merge, split
from seqjax.nn.vgg import VGG
from seqjax.train.command import main
from seqjax.train.progress import show

_SIDE = 224
"""Of the images that VGG-16 takes."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Which clips, by which network, where to."""

    data: Clips = Clips()
    """The clips; their features go to where `folder_of_features` looks for them with the same data_dir."""
    splits: tuple[str, ...] = ("train", "test")
    """Those of their splits that are read; a network that is trained here learns from the first and is tried on the
    last."""
    vgg: str | None = None
    """File with torchvision's weights of VGG-16, of which the features then are fc6, rectified."""
    seed: int = 0
    """Of the network that is trained here."""
    frames: int = 20
    """Frames that the network is given at once."""
    folder: str = "percepts"
    """Name of the folder that holds those of the splits."""


PRESETS = {
    "digits": Config(),
    "vgg": Config(data=Clips("ucf101", "ucf101_1"), vgg="vgg16-397923af.pth"),
    "tiny": Config(data=Clips(config="tiny_16"), frames=8),
}


def run(config: Config) -> None:
    """Write the features of every clip that has none yet."""
    sources = {part: open_split(config.data, part) for part in config.splits}
    if config.vgg is None:
        first, last = (sources[config.splits[place]] for place in (0, -1))
        net = train_digits_cnn(*labelled(first), *labelled(last), name="frames-cnn", seed=config.seed)
        show(f"{net.name}, {net.protocol}: {net.accuracy:.1%} of held-out frames right")
    else:
        net = vgg_features(load_vgg(config.vgg, top=True))
    root = folder_in(config.data.data_dir, config.folder)
    sign(root, net, f"{config.data.name}/{config.data.config}")
    for part, source in sources.items():
        write(source, root / part, net, frames=config.frames)
        show(f"{root / part}: {len(source)} clips, {net.dimension} features of each frame")


def labelled(source: Source) -> tuple[Float[np.ndarray, "N H W C"], Int[np.ndarray, " N"]]:
    """A frame of every clip, of the first the first, of the next the next, in [-1, 1], and the clips' labels.

    Raises:
      InputError: clips without a label, or with several.
    """
    records = [source[i] for i in range(len(source))]
    if any(record.get("label", np.zeros(0)).size != 1 for record in records):
        raise InputError(
            "data: these clips have not one label each, which a network could learn to tell: give --vgg, a file with "
            "VGG-16's weights, or clips with labels."
        )
    frames = np.stack([record["video"][i % len(record["video"])] for i, record in enumerate(records)])
    return signed(frames), np.array([record["label"].item() for record in records])


def signed(frames: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N H W C"]:
    """Grey levels in [-1, 1]."""
    return frames.astype(np.float32) / 127.5 - 1


def vgg_features(net: VGG) -> FeatureNet:
    """Rectified fc6 of the largest square in the middle of images, grey or RGB, resized to what the network takes."""
    graphs, params, rest = split({"vgg": net})

    def features(params: dict, images: Float[Array, "B H W C"]) -> Features:
        batch, height, width, _ = images.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = jnp.broadcast_to(images[:, top : top + side, left : left + side], (batch, side, side, 3))
        resized = jax.image.resize(square, (batch, _SIDE, _SIDE, 3), "bilinear")
        found = merge(graphs, params, rest)["vgg"](resized, ("relu6",))["relu6"]
        return Features(found.reshape(batch, -1), jnp.zeros((batch, 0)))

    return FeatureNet(
        name=f"vgg{net.depth}-relu6",
        sha256=hash_weights(params),
        protocol=f"largest central square, resized bilinearly to {_SIDE}",
        dimension=params["vgg"]["fc6"]["bias"].size,
        classes=0,
        params=params,
        extract=features,
    )


def sign(root: Path, net: FeatureNet, clips: str) -> None:
    """Say beside the features whose they are.

    Raises:
      InputError: there are some of other clips or by another network.
    """
    path, mine = root / "network.json", {"clips": clips, **net.record()}
    if not path.exists():
        replace_file(path, json.dumps(mine, indent=2).encode())
    elif (theirs := json.loads(path.read_text())) != mine:
        differ = ", ".join(
            f"{key} {theirs.get(key)}, not {value}" for key, value in mine.items() if theirs.get(key) != value
        )
        raise InputError(
            f"folder: {root} has features of other clips or by another network already ({differ}): delete it, or give "
            "another folder."
        )


def write(source: Source, folder: Path, net: FeatureNet, *, frames: int) -> None:
    """A file ``[T, D]`` for every clip that has none yet, so many frames computed at once; none for a damaged one."""
    for i in range(len(source)):
        path = folder / f"{i:06}.npy"
        if path.exists():
            continue
        video = source[i]["video"]
        if i in getattr(source, "damaged", ()):  # another stands in its place
            continue
        content = io.BytesIO()
        np.save(content, extract(net, signed(video), batch=frames)[0])
        replace_file(path, content.getvalue())
        if i % 1000 == 999:
            show(f"{folder}: {i + 1} of {len(source)}")


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
