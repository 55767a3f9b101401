"""The table of cells: what the laws of ``test_cell_laws`` hold for. A new cell adds its lines here."""

from typing import Any, NamedTuple

from seqjax.ops import cells
from seqjax.ops.recurrence import Cell


class Case(NamedTuple):
    """One cell with the options of its ``init``, and the shapes of one input without time and batch."""

    cell: Cell
    options: dict[str, Any]
    space: tuple[int, ...] = ()
    inputs: Any = (2,)
    """Channels of each input, as the cell takes them: ``(2,)`` for an array, a tuple of such for a tuple."""


CONVOLUTION = {"kernel_size": (3, 3), "input_kernel_size": (1, 1)}

CELLS = {
    "rnn": (cells.rnn, {}),
    "rnn_relu": (cells.rnn_relu, {}),
    "lstm": (cells.lstm, {"peephole": "channel"}),
    "gru": (cells.gru, {}),
    "gru_reset_before": (cells.gru_reset_before, {}),
}

CASES = (
    {f"{name}_dense": Case(cell, options) for name, (cell, options) in CELLS.items()}
    | {f"{name}_conv": Case(cell, options | CONVOLUTION, (4, 3)) for name, (cell, options) in CELLS.items()}
    | {f"{name}_norm": Case(cell, options | {"layer_norm": True}) for name, (cell, options) in CELLS.items()}
    | {
        "lstm_norm_conv": Case(cells.lstm, CONVOLUTION | {"layer_norm": True}, (4, 3)),
        "gru_rcn": Case(cells.gru_rcn, {"below_features": 5}, (4, 3), ((2,), (5,))),
    }
)
