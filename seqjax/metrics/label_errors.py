"""Label error rate: how many labels have to be changed until the right ones stand there."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from seqjax.errors import InputError
from seqjax.metrics.metric import Figures, Metric
from seqjax.metrics.rows import Rows, add_rows, no_rows, rows_of


def edit_distance(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The least number of insertions, deletions and substitutions that make one sequence the other (Levenshtein)."""
    costs = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, costs[0] = costs[0], i
        for j, b in enumerate(other, 1):
            diagonal, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, diagonal + (a != b))
    return costs[-1]


def label_errors(capacity: int, *, length: int, labels: int) -> Metric:
    """Figures of labels that a model writes:

        label_error_rate   Σ edit distances / Σ lengths of the true labels: 1 for silence, and no limit above
        exact              share of rows without an error

    Outputs are int ``[B, length]`` and ``batch["labels"]`` int ``[B, labels]``, each row's labels and then zeros.

    Args:
      capacity: how many examples there are.
      length: of a row of outputs.
      labels: of a row of true labels.

    Raises:
      InputError: of `accumulate`, for outputs of another length; of `finish`, if nothing was seen.

    Source: Graves et al., *Connectionist Temporal Classification*, 2006, Eq. 1, there as a mean over rows.
    """
    row = {name: jax.ShapeDtypeStruct((size,), jnp.int32) for name, size in (("found", length), ("true", labels))}

    def accumulate(acc: Rows, outputs: Int[Array, "B L"], batch: Mapping[str, Array]) -> Rows:
        if outputs.shape[1] != length:
            raise InputError(
                f"label_errors(length={length}): outputs have the shape {outputs.shape}, not [B, {length}]: build the "
                "metric for the length that the model writes."
            )
        weight = batch.get("weight", jnp.ones(len(outputs)))
        return add_rows(acc, {"found": outputs, "true": batch["labels"]}, weight)

    def finish(acc: Rows) -> Figures:
        seen = rows_of(acc)
        errors, total = [], 0
        for found, true in zip(seen["found"], seen["true"], strict=True):
            errors.append(edit_distance(found[found > 0].tolist(), true[true > 0].tolist()))
            total += int(np.sum(true > 0))
        return {"label_error_rate": sum(errors) / max(total, 1), "exact": float(np.mean(np.equal(errors, 0)))}

    return Metric(lambda: no_rows(row, capacity), accumulate, finish)
