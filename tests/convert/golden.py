"""Writes ``golden/*.npz``: what PyTorch, Keras and Haiku compute. Run by hand: ``python golden.py [library]``.

Needs torch, keras and dm-haiku, which the tests do not. Every case holds weights, inputs (padded with 9 past the
lengths), lengths, outputs, final states, and the gradients of ``Σ outputs² / 2 + Σ states²`` (valid steps alone) with
respect to weights and inputs; a key is ``case:field:name of the array``.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from source import LENGTHS, B, C, D, T, draw, draw_inputs, jax_case


def write(library, cases):
    arrays = {"versions": json.dumps({name: version(name) for name in (library, "numpy", "jax")})}
    for case, fields in cases:
        for field, value in fields.items():
            for name, array in value.items() if isinstance(value, dict) else [("", value)]:
                arrays[f"{case}:{field}:{name}"] = np.asarray(array)
    path = Path(__file__).parent / "golden" / f"{library}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)
    print(path.name, path.stat().st_size, arrays["versions"])


def torch_case(module, seed):
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.tensor(draw(rng, tuple(parameter.shape))))
    xs = torch.tensor(draw_inputs(rng, LENGTHS), requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(xs, LENGTHS, batch_first=True, enforce_sorted=False)
    ys, states = module(packed)
    ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, batch_first=True)
    states = states if isinstance(states, tuple) else (states,)
    (ys.square().sum() / 2 + sum(s.square().sum() for s in states)).backward()
    return {
        "weights": {name: p.detach().numpy() for name, p in module.named_parameters()},
        "gradients": {name: p.grad.numpy() for name, p in module.named_parameters()},
        "inputs": xs.detach().numpy(),
        "inputs_gradient": xs.grad.numpy(),
        "lengths": LENGTHS,
        "outputs": ys.detach().numpy(),
        "states": {"hc"[k]: s.detach().numpy() for k, s in enumerate(states)},
    }


def torch_cases():
    nn = torch.nn
    for name, module in {
        "lstm_3_both": nn.LSTM(C, D, num_layers=3, bidirectional=True),
        "lstm_1_no_bias": nn.LSTM(C, D, bias=False),
        "gru_2_both": nn.GRU(C, D, num_layers=2, bidirectional=True),
        "rnn_2": nn.RNN(C, D, num_layers=2),
        "rnn_relu_1_both": nn.RNN(C, D, nonlinearity="relu", bidirectional=True),
    }.items():
        module.batch_first = True
        yield name, torch_case(module, len(name))


def keras_case(make, depth, both, seed, lengths=LENGTHS, shape=(B, T, C)):
    rng = np.random.default_rng(seed)
    xs = draw_inputs(rng, lengths, shape)
    mask = None if lengths is None else np.arange(shape[1]) < lengths[:, None]
    layers = [keras.layers.Bidirectional(make()) if both else make() for _ in range(depth)]
    ys = xs
    for layer in layers:
        ys = layer(ys)[0]
        layer.set_weights([draw(rng, w.shape) for w in layer.get_weights()])
    weights = {f"{k}:{i}": w for k, layer in enumerate(layers) for i, w in enumerate(layer.get_weights())}

    def apply(weights, ys):
        states = []
        for k, layer in enumerate(layers):
            own = [weights[f"{k}:{i}"] for i in range(len(layer.weights))]
            rest = [v.value for v in layer.non_trainable_variables]
            (ys, *found), _ = layer.stateless_call(own[: len(layer.trainable_variables)], rest, ys, mask=mask)
            states += found
        names = ["h", "c"] if len(states) == 2 * depth * (1 + both) else ["h"]
        return ys, {name: jnp.stack(states[i :: len(names)]) for i, name in enumerate(names)}

    return jax_case(apply, weights, xs, lengths)


def keras_cases():
    layers = keras.layers
    options = {"return_sequences": True, "return_state": True}
    yield "lstm_2_both", keras_case(lambda: layers.LSTM(D, **options), 2, True, 1)
    yield "lstm_1_no_bias", keras_case(lambda: layers.LSTM(D, use_bias=False, **options), 1, False, 2)
    yield "gru_1_both", keras_case(lambda: layers.GRU(D, **options), 1, True, 3)
    yield "gru_before_1_both", keras_case(lambda: layers.GRU(D, reset_after=False, **options), 1, True, 4)
    yield "rnn_1", keras_case(lambda: layers.SimpleRNN(D, **options), 1, False, 5)
    conv = lambda: layers.ConvLSTM2D(2, (3, 2), padding="same", **options)  # noqa: E731
    yield "conv_lstm_1", keras_case(conv, 1, False, 6, None, (2, 3, 4, 5, 2))


def haiku_case(make, depth, seed, shape=(B, T, C)):
    """Bidirectional layers: a core for each direction, the backward one unrolled in reverse."""
    rng = np.random.default_rng(seed)
    xs = draw_inputs(rng, None, shape)

    def forward(ys):
        states = []
        for _ in range(depth):
            runs = []
            for reverse in (False, True):
                core = make()
                run = hk.dynamic_unroll(core, ys, core.initial_state(shape[0]), time_major=False, reverse=reverse)
                runs.append(run[0])
                states.append(run[1])
            ys = jnp.concatenate(runs, axis=-1)
        return ys, states

    network = hk.without_apply_rng(hk.transform(forward))
    nested = network.init(jax.random.key(0), xs)
    weights = {f"{m}:{n}": draw(rng, a.shape) for m, own in nested.items() for n, a in own.items()}

    def apply(weights, xs):
        nested = {}
        for name, array in weights.items():
            module, kind = name.split(":")
            nested.setdefault(module, {})[kind] = array
        ys, states = network.apply(nested, xs)
        if isinstance(states[0], hk.LSTMState):
            return ys, {"h": jnp.stack([s.hidden for s in states]), "c": jnp.stack([s.cell for s in states])}
        return ys, {"h": jnp.stack(states)}

    return jax_case(apply, weights, xs, None)


def haiku_cases():
    yield "lstm_2_both", haiku_case(lambda: hk.LSTM(D), 2, 1)
    yield "gru_1_both", haiku_case(lambda: hk.GRU(D), 1, 2)
    yield "rnn_1_both", haiku_case(lambda: hk.VanillaRNN(D), 1, 3)
    yield "rnn_1_both_one_bias", haiku_case(lambda: hk.VanillaRNN(D, double_bias=False), 1, 4)
    yield "conv_lstm_1_both", haiku_case(lambda: hk.Conv2DLSTM((4, 5), 2, (3, 2)), 1, 5, (2, 3, 4, 5, 2))


if __name__ == "__main__":
    cases = {"torch": torch_cases, "keras": keras_cases, "dm-haiku": haiku_cases}
    for library in sys.argv[1:] or cases:
        write(library, cases[library]())
