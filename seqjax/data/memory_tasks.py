"""Two problems that ask for long memory and for nothing else, as tfds data sets.

Both were posed by S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 1997; both follow
the protocol that later work compares by, of M. Arjovsky, A. Shah and Y. Bengio, "Unitary Evolution Recurrent Neural
Networks", ICML 2016, https://arxiv.org/abs/1511.06464:

- ``adding_problem``: the sum of two marked numbers among ``T``;
- ``copy_memory``: ten symbols, to be repeated after ``T`` blanks.

Departures from 1997: there the numbers are of [-1, 1], the first mark is one of the first ten steps, the target is
scaled into [0, 1] and lengths vary by a tenth. From 2016, none.
"""

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, Int32

from seqjax.errors import InputError

COPIED, SYMBOLS = 10, 8
"""Symbols to remember in ``copy_memory``, and how many kinds there are."""
BLANK, GO = SYMBOLS, SYMBOLS + 1
"""The two other symbols of ``copy_memory``: nothing, and the request to repeat."""


def adding(rng: np.random.Generator, length: int) -> tuple[Float32[np.ndarray, "T 2"], Float32[np.ndarray, " 1"]]:
    """Numbers ``u_t ~ U[0, 1)`` beside marks, and the sum of the two that are marked.

    One mark (1, elsewhere 0) lies uniformly in the first half of the steps, one in the second. Always to answer 1 is
    the best that can be done without memory: squared error 1/6, the variance of a sum of two uniform numbers.

    Args:
      rng: source of the numbers and marks.
      length: ``T``.
    """
    numbers = rng.random(length, np.float32)
    marked = [rng.integers(length // 2), rng.integers(length // 2, length)]
    marks = np.zeros(length, np.float32)
    marks[marked] = 1
    return np.stack([numbers, marks], axis=-1), numbers[marked].sum(keepdims=True)


def copying(rng: np.random.Generator, length: int) -> tuple[Int32[np.ndarray, " L"], Int32[np.ndarray, " L"]]:
    """Symbols to remember and the answer, of ``L = T + 20`` steps each.

    Inputs: ten symbols drawn from 0 to 7 with replacement, ``T - 1`` blanks (8), the go symbol (9), ten blanks.
    Targets: ``T + 10`` blanks, then the ten symbols. Without memory the best is to be sure of the blanks and to guess
    the rest: cross-entropy ``10 ln 8 / (T + 20)`` per step.

    Args:
      rng: source of the symbols.
      length: ``T``.
    """
    symbols = rng.integers(SYMBOLS, size=COPIED, dtype=np.int32)
    inputs, targets = np.full((2, length + 2 * COPIED), BLANK, np.int32)
    inputs[:COPIED] = targets[-COPIED:] = symbols
    inputs[-COPIED - 1] = GO
    return inputs, targets


SPLITS = ("train", "validation", "test")

NAMED: dict[str, dict[str, int]] = {
    "t60": {},
    **{f"t{length}": {"length": length} for length in (10, 20, 30, 100)},
    **{f"paper_t{length}": {"length": length, "train": 100_000, "test": 10_000} for length in (100, 200, 400, 750)},
    "tiny": {"length": 8, "train": 64, "validation": 16, "test": 12},
}
"""Configurations by name: short sets for quick runs, the lengths and numbers of Arjovsky et al., and a few sequences
for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class MemoryTaskConfig(tfds.core.BuilderConfig):
    """Settings of one set of sequences; each field changes what is on disk.

    Raises:
      InputError: a length below 2, a count below 1, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    length: int = 60
    """``T``: steps of ``adding_problem``, blanks of ``copy_memory``."""
    train: int = 20_000
    """Sequences for training."""
    validation: int = 1_000
    """Sequences for validation."""
    test: int = 2_000
    """Sequences for testing."""
    seed: int = 0
    """Sequence ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {"length": 2, **dict.fromkeys(SPLITS, 1), "seed": 0}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a MemoryTaskConfig: give {least} or more.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a MemoryTaskConfig: leave it out, it follows from the rest.")
        self.name = self.name or f"t{self.length}_{self.train}_{self.validation}_{self.test}_seed{self.seed}"


class _MemoryTask(tfds.core.GeneratorBasedBuilder):
    """What both sets share: a record has ``inputs`` and ``targets``, and record ``i`` of a split is its sequence i."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [MemoryTaskConfig(name=name, **fields) for name, fields in NAMED.items()]

    @staticmethod
    @abc.abstractmethod
    def draw(rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of one sequence."""

    def _describe(self, text: str) -> tfds.core.DatasetInfo:
        inputs, targets = self._sequence("train", 0)
        features = {
            name: tfds.features.Tensor(shape=value.shape, dtype=value.dtype.type, encoding="zlib")
            for name, value in {"inputs": inputs, "targets": targets}.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=text,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for i in range(getattr(self.builder_config, split)):
            inputs, targets = self._sequence(split, i)
            yield i, {"inputs": inputs, "targets": targets}

    def _sequence(self, split: str, i: int) -> tuple[np.ndarray, np.ndarray]:
        config = self.builder_config
        rng = np.random.default_rng([config.seed, SPLITS.index(split), i])
        return type(self).draw(rng, config.length)


class AddingProblem(_MemoryTask):
    """The sequences of ``adding``: ``inputs`` float32 ``[T, 2]``, ``targets`` float32 ``[1]``."""

    draw = staticmethod(adding)

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe("Two numbers among many are marked; the target is their sum.")


class CopyMemory(_MemoryTask):
    """The sequences of ``copying``: ``inputs`` and ``targets`` int32 ``[T + 20]``."""

    draw = staticmethod(copying)

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe("Ten symbols, many blanks and a request to repeat the symbols.")
