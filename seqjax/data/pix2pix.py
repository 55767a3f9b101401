"""The paired sets published with pix2pix, and any other in their layout, as a tfds data set made from local files.

P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR
2017: one folder per set, in it one per split, in that one picture per pair, A its left half and B its right one.

=================  ==========================  =================================  ==========
set                A                           B                                  direction
=================  ==========================  =================================  ==========
facades            photograph                  labels                             BtoA
cityscapes         photograph                  labels                             BtoA
maps               aerial photograph           map                                AtoB
edges2shoes        edges                       photograph                         AtoB
edges2handbags     edges                       photograph                         AtoB
night2day          night                       day                                BtoA
=================  ==========================  =================================  ==========
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import tensorflow_datasets as tfds
from PIL import Image

from seqjax.errors import InputError

DIRECTIONS: dict[str, Literal["AtoB", "BtoA"]] = {
    "facades": "BtoA",
    "cityscapes": "BtoA",
    "maps": "AtoB",
    "edges2shoes": "AtoB",
    "edges2handbags": "AtoB",
    "night2day": "BtoA",
}
"""The published sets, and the way that each is translated unless said otherwise."""
OTHER_WAY: dict[str, Literal["AtoB", "BtoA"]] = {"AtoB": "BtoA", "BtoA": "AtoB"}
SPLITS = ("train", "val", "test")
"""Names of the folders; each set has ``train`` and one or both of the others."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Pix2PixConfig(tfds.core.BuilderConfig):
    """Which folder, and which way.

    Raises:
      InputError: an unknown direction, a folder that is no plain name, a name.
    """

    name: str = ""
    """Leave it out: it is the folder, and the direction where that is not the set's usual one."""
    folder: str = "facades"
    """Of a published set or of one's own pairs."""
    direction: Literal["", "AtoB", "BtoA"] = ""
    """``AtoB``: the left half is ``input``; ``BtoA``: the right half is; empty: the table's, ``AtoB`` if not in it."""

    def __post_init__(self) -> None:
        usual = DIRECTIONS.get(self.folder, "AtoB")
        self.direction = self.direction or usual
        if self.direction not in OTHER_WAY:
            raise InputError(f"direction={self.direction!r} in a Pix2PixConfig: give 'AtoB' or 'BtoA'.")
        if not self.folder.isidentifier():
            raise InputError(f"folder={self.folder!r} in a Pix2PixConfig: give letters, digits and underscores.")
        spelt = self.folder if self.direction == usual else f"{self.folder}_{self.direction}"
        if self.name not in ("", spelt):
            raise InputError(f"name={self.name!r} in a Pix2PixConfig: leave it out, it follows from the rest.")
        self.name = spelt


class Pix2Pix(tfds.core.GeneratorBasedBuilder):
    """Pairs of a ``Pix2PixConfig``, in the order of their files' names; prepared without TensorFlow.

    A record has ``input`` and ``target``, uint8 ``[H, W, 3]``, the halves of a picture, kept without further loss.
    """

    name = "pix2pix"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [
        *(Pix2PixConfig(folder=folder) for folder in DIRECTIONS),
        *(Pix2PixConfig(folder=folder, direction=OTHER_WAY[usual]) for folder, usual in DIRECTIONS.items()),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Unpack http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/SET.tar.gz, SET being facades, cityscapes, maps, "
        "edges2shoes, edges2handbags or night2day, so that SET/train has the pictures; your own pairs likewise."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        half = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pairs of images, given side by side in one picture.",
            features=tfds.features.FeaturesDict({"input": half, "target": half}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Image.Image]]]]:
        root = Path(dl_manager.manual_dir) / self.builder_config.folder
        files = {split: pictures(root / split) for split in SPLITS}
        if not files["train"]:
            raise InputError(f"{root / 'train'} has no .jpg or .png pictures. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return {split: self._generate_examples(found) for split, found in files.items() if found}

    def _generate_examples(self, files: list[Path]) -> Iterator[tuple[int, dict[str, Image.Image]]]:
        for i, file in enumerate(files):
            a, b = halves(file)
            yield i, {"input": a, "target": b} if self.builder_config.direction == "AtoB" else {"input": b, "target": a}


def pictures(folder: Path) -> list[Path]:
    """The JPEG and PNG files of a folder by name; none if there is no such folder."""
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))


def halves(file: Path) -> tuple[Image.Image, Image.Image]:
    """Left and right half of a picture, in RGB.

    Raises:
      InputError: a width that is odd; a file that cannot be read.
    """
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error}): unpack its archive again, or delete the file.") from error
    width, height = picture.size
    if width % 2:
        raise InputError(f"{file} is {width} pixels wide and has no halves: give A and B side by side, equally wide.")
    return picture.crop((0, 0, width // 2, height)), picture.crop((width // 2, 0, width, height))
