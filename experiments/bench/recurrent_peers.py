"""The libraries that ``experiments.bench.recurrent`` compares, each as a function that builds one timed call.

Run as a module it is a worker (`experiments.bench.workers`), so that every library has a process of its own.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.bench.timing import Call
from experiments.bench.workers import serve


class Point(NamedTuple):
    """One point of the grid."""

    cell: str
    """lstm or gru; convlstm for a convolutional state."""
    batch: int
    """Sequences."""
    steps: int
    """Steps of each."""
    width: int
    """Features of the input and of the state."""
    side: int = 0
    """Height and width of a convolutional state; 0 for a dense one."""
    dtype: str = "float32"
    """Of parameters and inputs."""


KERNEL = (3, 3)


def inputs(point: Point) -> np.ndarray:
    """Standard normal, ``[B, T, *space, C]``."""
    space = (point.side, point.side) if point.side else ()
    shape = (point.batch, point.steps, *space, point.width)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _jax(point: Point, apply: Callable, params: Any, gradient: bool) -> tuple[Call, dict]:
    """Compile the forward pass, or its gradient in every parameter, and say what compiling cost."""
    import jax
    import jax.numpy as jnp

    from experiments.bench.timing import compiled

    params, xs = jax.tree.map(lambda x: jnp.asarray(x, point.dtype), (params, inputs(point)))

    def objective(params: Any, xs: Any) -> Any:
        return jnp.mean(jnp.square(apply(params, xs).astype(jnp.float32)))

    program = compiled(jax.value_and_grad(objective) if gradient else apply, params, xs)
    facts = {"compile_seconds": program.seconds, "temporary_bytes": program.temporary_bytes}
    return program.call, facts


def seqjax(point: Point, gradient: bool, **options: Any) -> tuple[Call, dict]:
    """This library."""
    import jax

    from seqjax.ops import cells
    from seqjax.ops.scan import unroll

    cell = {"lstm": cells.lstm, "gru": cells.gru, "convlstm": cells.lstm, "convgru": cells.gru_reset_before}[point.cell]
    kernel = {"kernel_size": KERNEL} if point.side else {}
    params = cell.init(jax.random.key(0), point.width, point.width, **kernel)
    options = {name: point.steps if value == "steps" else value for name, value in options.items()}
    return _jax(point, lambda p, xs: unroll(cell, p, None, xs, **options)[1], params, gradient)


def flax_linen(point: Point, gradient: bool) -> tuple[Call, dict]:
    """``flax.linen.RNN``."""
    import jax
    from flax import linen as nn

    cells = {
        "lstm": lambda: nn.OptimizedLSTMCell(point.width),
        "gru": lambda: nn.GRUCell(point.width),
        "convlstm": lambda: nn.ConvLSTMCell(point.width, KERNEL),
    }
    net = nn.RNN(cells[point.cell]())
    params = net.init(jax.random.key(0), inputs(point)[:, :1])
    return _jax(point, net.apply, params, gradient)


def flax_nnx(point: Point, gradient: bool) -> tuple[Call, dict]:
    """``flax.nnx.RNN``."""
    import jax.numpy as jnp
    from flax import nnx

    cells = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}
    net = nnx.RNN(cells[point.cell](point.width, point.width, rngs=nnx.Rngs(0)))
    graph, params, *rest = nnx.split(net, nnx.Param, ...)

    def run(params: Any, xs: Any) -> Any:
        zeros = jnp.zeros((point.batch, point.width), xs.dtype)
        start = (zeros, zeros) if point.cell == "lstm" else zeros
        return nnx.merge(graph, params, *rest, copy=True)(xs, initial_carry=start)

    return _jax(point, run, params, gradient)


def haiku(point: Point, gradient: bool) -> tuple[Call, dict]:
    """``haiku.dynamic_unroll``."""
    import haiku as hk
    import jax

    cells = {
        "lstm": lambda: hk.LSTM(point.width),
        "gru": lambda: hk.GRU(point.width),
        "convlstm": lambda: hk.Conv2DLSTM((point.side, point.side), point.width, KERNEL),
    }

    def run(xs: Any) -> Any:
        cell = cells[point.cell]()
        return hk.dynamic_unroll(cell, xs, cell.initial_state(xs.shape[0]), time_major=False)[0]

    net = hk.without_apply_rng(hk.transform(run))
    return _jax(point, net.apply, net.init(jax.random.key(0), inputs(point)[:, :1]), gradient)


def equinox(point: Point, gradient: bool) -> tuple[Call, dict]:
    """``equinox.nn`` cells under ``jax.lax.scan``, batched by ``jax.vmap`` as its documentation does."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    kinds = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}
    cell = kinds[point.cell](point.width, point.width, key=jax.random.key(0))
    params, static = eqx.partition(cell, eqx.is_array)

    def one(params: Any, xs: Any) -> Any:
        cell = eqx.combine(params, static)
        zeros = jnp.zeros(point.width, xs.dtype)

        def step(state: Any, x: Any) -> tuple[Any, Any]:
            state = cell(x, state)
            return state, state[0] if point.cell == "lstm" else state

        return jax.lax.scan(step, (zeros, zeros) if point.cell == "lstm" else zeros, xs)[1]

    return _jax(point, lambda p, xs: jax.vmap(one, in_axes=(None, 0))(p, xs), params, gradient)


def keras(point: Point, gradient: bool) -> tuple[Call, dict]:
    """Keras layers on the JAX backend, through ``stateless_call``."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layers = {
        "lstm": lambda: keras.layers.LSTM(point.width, return_sequences=True),
        "gru": lambda: keras.layers.GRU(point.width, return_sequences=True),
        "convlstm": lambda: keras.layers.ConvLSTM2D(point.width, KERNEL, padding="same", return_sequences=True),
    }
    layer = layers[point.cell]()
    layer.build(inputs(point).shape)
    rest = [variable.value for variable in layer.non_trainable_variables]
    params = [variable.value for variable in layer.trainable_variables]
    return _jax(point, lambda p, xs: layer.stateless_call(p, rest, xs)[0], params, gradient)


def torch(point: Point, gradient: bool) -> tuple[Call, dict]:
    """``torch.nn.LSTM`` and ``GRU``; for convolutional states the usual loop of one convolution per step."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, point.dtype)
    xs = torch.from_numpy(inputs(point)).to(device, dtype)
    if point.side:
        net: Any = _torch_conv_lstm(point)
        xs = xs.movedim(-1, 2).contiguous()
    else:
        net = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[point.cell](point.width, point.width, batch_first=True)
    net = net.to(device, dtype)

    def call() -> None:
        if gradient:
            net.zero_grad(set_to_none=True)
            output = net(xs)
            (output if point.side else output[0]).float().square().mean().backward()
        else:
            with torch.no_grad():
                net(xs)
        if device == "cuda":
            torch.cuda.synchronize()

    return call, {"compile_seconds": 0.0, "temporary_bytes": None}


def _torch_conv_lstm(point: Point) -> Any:
    import torch

    class ConvLSTM(torch.nn.Module):
        """Inputs of all steps in one convolution, the state's in a loop; gates i, f, g, o."""

        def __init__(self) -> None:
            super().__init__()
            self.input = torch.nn.Conv2d(point.width, 4 * point.width, KERNEL, padding="same")
            self.state = torch.nn.Conv2d(point.width, 4 * point.width, KERNEL, padding="same", bias=False)

        def forward(self, xs: Any) -> Any:
            zs = self.input(xs.flatten(0, 1)).unflatten(0, xs.shape[:2])
            h = c = torch.zeros_like(xs[:, 0])
            hs = []
            for t in range(xs.shape[1]):
                i, f, g, o = (zs[:, t] + self.state(h)).chunk(4, dim=1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                hs.append(h)
            return torch.stack(hs, dim=1)

    return ConvLSTM()


DENSE, CONVOLUTIONAL = ("lstm", "gru"), ("convlstm",)

PEERS: dict[str, tuple[Callable[..., tuple[Call, dict]], tuple[str, ...], str]] = {
    "seqjax": (seqjax, (*DENSE, *CONVOLUTIONAL), "jax"),
    "seqjax, unrolled": (
        functools.partial(seqjax, unroll="steps", weight_gradient="autodiff"),
        CONVOLUTIONAL,
        "jax",
    ),
    "flax.linen": (flax_linen, (*DENSE, *CONVOLUTIONAL), "flax"),
    "flax.nnx": (flax_nnx, DENSE, "flax"),
    "haiku": (haiku, (*DENSE, *CONVOLUTIONAL), "dm-haiku"),
    "equinox": (equinox, DENSE, "equinox"),
    "keras": (keras, (*DENSE, *CONVOLUTIONAL), "keras"),
    "torch": (torch, (*DENSE, *CONVOLUTIONAL), "torch"),
}
"""By name: what builds the call, the cells it has, and the package whose version is recorded."""


if __name__ == "__main__":
    peer, _, package = PEERS[sys.argv[1]]
    serve(lambda point, gradient: peer(Point(*point), gradient), package)
