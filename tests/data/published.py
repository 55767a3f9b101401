"""Sets of TFDS as its builders give them where TensorFlow is there, and what is said of a set that cannot be had."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.registered import skip_registration

from seqjax.data.source import open_source
from seqjax.errors import InputError

with skip_registration():

    class MovingMnist(tfds.core.GeneratorBasedBuilder):
        """The name of the feature, and a test split only; clip i has grey level i."""

        name = "moving_mnist"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            clip = tfds.features.Tensor(shape=(20, 64, 64, 1), dtype=np.uint8)
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image_sequence": clip}))

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                yield i, {"image_sequence": np.full((20, 64, 64, 1), i, np.uint8)}


def message(*args, **kwargs) -> str:
    """The one line with which ``open_source`` refuses."""
    with pytest.raises(InputError) as caught:
        open_source(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
