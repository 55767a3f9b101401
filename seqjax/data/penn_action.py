"""Penn Action: people who do sports, 13 joints in every frame, made from local files.

W. Zhang, M. Zhu, K. G. Derpanis, "From Actemes to Action: A Strongly-supervised Representation for Detailed Action
Understanding", ICCV 2013: 2,326 clips of 15 actions, 1,258 of them for training.

Each clip is cut out around all of its boxes together, as square as the film allows, and brought to one size, as for
R. Villegas et al., "Learning to Generate Long-term Future via Hierarchical Prediction", ICML 2017, and its released
code, whose shifts of the joints at the film's border are not repeated here.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from seqjax.data.video_files import LeftOut
from seqjax.errors import InputError

ACTIONS = (
    *("baseball_pitch", "baseball_swing", "bench_press", "bowl", "clean_and_jerk", "golf_swing", "jump_rope"),
    *("jumping_jacks", "pullup", "pushup", "situp", "squat", "strum_guitar", "tennis_forehand", "tennis_serve"),
)
EIGHT = (
    *("baseball_pitch", "baseball_swing", "clean_and_jerk", "golf_swing"),
    *("jump_rope", "jumping_jacks", "tennis_forehand", "tennis_serve"),
)
"""Those that hierarchical prediction was tried on: filmed by cameras that hardly move."""
JOINTS = 13
"""As in ``stick_figures.JOINTS``."""
MARGIN = 5
"""Pixels around the boxes."""


class Labels(NamedTuple):
    """What one of the files says, in pixels of the film."""

    action: str
    train: bool
    joints: Float[np.ndarray, "T 13 2"]
    """Row and column."""
    visible: Bool[np.ndarray, "T 13"]
    boxes: Float[np.ndarray, "T 4"]
    """Left, top, right, bottom."""


@dataclasses.dataclass(eq=False, kw_only=True)
class PennActionConfig(tfds.core.BuilderConfig):
    """Size and actions.

    Raises:
      InputError: a size below 16, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields."""
    size: int = 128
    """Height and width that clips are brought to, in pixels."""
    eight: bool = False
    """Whether only the actions of ``EIGHT`` are taken."""

    def __post_init__(self) -> None:
        if self.size < 16:
            raise InputError(f"size={self.size} in a PennActionConfig: give 16 or more.")
        spelt = f"{self.size}{'_eight' * self.eight}"
        if self.name not in ("", spelt):
            raise InputError(f"name={self.name!r} in a PennActionConfig: leave it out, it follows from the rest.")
        self.name = spelt


class PennAction(tfds.core.GeneratorBasedBuilder):
    """Clips of a ``PennActionConfig`` in the order of their numbers; prepared without TensorFlow.

    A record has, with T frames that differ from clip to clip, ``video`` uint8 ``[T, S, S, 3]``; ``label``, a place in
    ``ACTIONS``; of the one person, as ``stick_actions`` has it of several, ``joints`` float32 ``[T, 1, 13, 2]``, row
    and column in pixels, ``visible`` bool ``[T, 1, 13]``, and ``boxes`` float32 ``[T, 1, 4]``: top, left, bottom,
    right; ``extent`` float32 ``[2]``, height and width of what was cut out of the film; and ``index``, its number.
    Clips that cannot be read are left out, counted and named, in a warning and under ``damaged`` in ``info.metadata``,
    by split or, where it is the labels, which say the split, under "labels"; more than one in ten are an error.
    """

    name = "penn_action"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.1.0": "Damaged clips are left out and listed.", "1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [
        PennActionConfig(),
        PennActionConfig(eight=True),
        PennActionConfig(size=64, eight=True),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Unpack Penn_Action.tar.gz, from https://dreamdragon.github.io/PennAction/, there, so that the frames lie in "
        "Penn_Action/frames/0001/000001.jpg and so on and the labels in Penn_Action/labels/0001.mat and so on."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        size, tensor = self.builder_config.size, tfds.features.Tensor
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sports with 13 joints in every frame.",
            features=tfds.features.FeaturesDict(
                {
                    "video": tensor(shape=(None, size, size, 3), dtype=np.uint8, encoding="zlib"),
                    "label": tensor(shape=(), dtype=np.int64),
                    "joints": tensor(shape=(None, 1, JOINTS, 2), dtype=np.float32),
                    "visible": tensor(shape=(None, 1, JOINTS), dtype=np.bool_),
                    "boxes": tensor(shape=(None, 1, 4), dtype=np.float32),
                    "extent": tensor(shape=(2,), dtype=np.float32),
                    "index": tensor(shape=(), dtype=np.int64),
                }
            ),
            metadata=tfds.core.MetadataDict(damaged={}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        root = Path(dl_manager.manual_dir) / "Penn_Action"
        files = sorted((root / "labels").glob("*.mat"))
        if not files:
            raise InputError(f"{root / 'labels'} holds no .mat files. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        wanted = EIGHT if self.builder_config.eight else ACTIONS
        left_out = LeftOut("labels", len(files))
        clips = [(file, labels) for file in files if (labels := left_out.attempt(read, file))]
        left_out.tell(self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        self.info.metadata["damaged"]["labels"] = left_out.damaged
        splits: dict[str, list[tuple[Path, Labels]]] = {"train": [], "test": []}
        for file, labels in clips:
            if labels.action in wanted:
                splits["train" if labels.train else "test"].append((file, labels))
        return {split: self._generate_examples(split, root / "frames", chosen) for split, chosen in splits.items()}

    def _generate_examples(
        self, split: str, frames: Path, clips: list[tuple[Path, Labels]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        left_out = LeftOut(split, len(clips))
        for file, labels in clips:
            cut = left_out.attempt(cut_out, frames / file.stem, labels, self.builder_config.size)
            if cut is not None:
                index = int(file.stem)
                yield index, cut | {"label": ACTIONS.index(labels.action), "index": index}
        left_out.tell(self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        self.info.metadata["damaged"][split] = left_out.damaged


def read(file: Path) -> Labels:
    """One of the files.

    Raises:
      InputError: it is damaged, or of another layout.
    """
    try:
        found = loadmat(file)
        joints = np.stack([found["y"], found["x"]], axis=-1).astype(float)
        action = str(np.ravel(found["action"])[0])
        visible, boxes = np.asarray(found["visibility"]) > 0, np.asarray(found["bbox"], float)
        if joints.shape[1:] != (JOINTS, 2) or visible.shape != joints.shape[:2] or boxes.shape[1:] != (4,):
            raise ValueError(f"joints {joints.shape}, visibility {visible.shape}, boxes {boxes.shape}")
        if action not in ACTIONS:
            raise ValueError(f"an action {action!r}")
        return Labels(action, int(np.ravel(found["train"])[0]) == 1, joints, visible, boxes)
    # NotImplementedError is what scipy has for files of MATLAB 7.3, which are HDF5.
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError, MatReadError) as error:
        raise InputError(
            f"{file} cannot be read as labels of Penn Action ({type(error).__name__}: {error})."
        ) from error


def cut_out(folder: Path, labels: Labels, size: int) -> dict[str, np.ndarray]:
    """The part of a record that is measured in pixels; as many frames as have both an image and joints.

    Raises:
      InputError: no images, or damaged ones.
    """
    files = sorted(folder.glob("*.jpg"))
    frames = min(len(files), len(labels.joints))
    if not frames:
        raise InputError(f"{folder} has {len(files)} images for the {len(labels.joints)} frames that have labels.")
    try:
        images = [Image.open(file).convert("RGB") for file in files[:frames]]
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{folder} has images that cannot be read ({error}).") from error
    left, top, right, bottom = window(labels.boxes, images[0].size)
    video = [image.resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom)) for image in images]
    start, extent = np.array([top, left]), np.array([bottom - top, right - left])
    joints = (labels.joints[:frames] + 0.5 - start) * size / extent - 0.5
    inside = ((joints > -0.5) & (joints < size - 0.5)).all(axis=-1)
    # There may be a box less than frames.
    edges = labels.boxes[np.minimum(np.arange(frames), len(labels.boxes) - 1)][:, [1, 0, 3, 2]]
    boxes = (edges - np.tile(start, 2)) * size / np.tile(extent, 2)
    return {
        "video": np.stack([_pixels(image) for image in video]),
        "joints": joints[:, None].astype(np.float32),
        "visible": (labels.visible[:frames] & inside)[:, None],
        "boxes": boxes[:, None].clip(0, size).astype(np.float32),
        "extent": extent.astype(np.float32),
    }


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    return np.asarray(image)


def window(boxes: Float[np.ndarray, "T 4"], film: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is cut out of a film of some width and height: all boxes with a margin, the
    shorter side as long as the longer, and of that what lies on the film."""
    first, last = np.rint(boxes[:, :2].min(axis=0)) - MARGIN, np.rint(boxes[:, 2:].max(axis=0)) + MARGIN
    lacking = (last - first).max() - (last - first)
    first, last = first - lacking // 2, last + lacking - lacking // 2
    (left, top), (right, bottom) = np.maximum(first, 0).astype(int), np.minimum(last, film).astype(int)
    return int(left), int(top), int(right), int(bottom)
