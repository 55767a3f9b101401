"""TFDS's videos read without TensorFlow, which its own feature of that name wants even where nothing is written."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

# Registers itself under its name when it is imported; only then can another take the name over.
from tensorflow_datasets.core.features import video_feature


class EncodedFrames(tfds.features.Sequence):
    """What a ``tfds.features.Video`` is on disk: a sequence of pictures, each encoded by itself.

    In a set that is read by its own description, because its builder cannot be imported, it takes that one's place.
    """

    ALIASES: ClassVar = [f"{video_feature.__name__}.{video_feature.Video.__name__}"]

    @classmethod
    def from_json_content(cls, value: Any) -> "EncodedFrames":
        """The feature of a description, in today's form or in that of sets prepared long ago."""
        if isinstance(value, Mapping):
            shape, dtype, encoding = value["shape"], "uint8", value["encoding_format"]
        else:
            shape = [None if length == -1 else length for length in value.shape.dimensions]
            dtype, encoding = value.dtype, value.encoding_format
        frames, *frame = shape
        return cls(tfds.features.Image(shape=frame, dtype=np.dtype(dtype), encoding_format=encoding), length=frames)
