"""Published adversarial networks against PyTorch (``golden_gans.py``), with weights that went through a file."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from convert.random_weights import random_images, random_weights
from flax import nnx
from nn.filled import run

from seqjax.convert.files import read_weights, write_weights
from seqjax.convert.gan import load_gan, save_gan, table
from seqjax.convert.table import dump, shapes_there
from seqjax.errors import InputError
from seqjax.models.generation import dcgan
from seqjax.nn.patch_discriminator import PatchDiscriminator
from seqjax.nn.residual_generator import ResidualGenerator
from seqjax.nn.unet import UNet

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "gans.npz"))
SHAPES = json.loads(GOLDEN["shapes"].item())

# By the name of the published option: what it is here, the side and channels of its images, rows that were kept.
CASES = {
    "unet_256": (lambda **o: UNet(3, 3, dropout_at="port", **o), 256, 3, 13),
    "unet_128": (lambda **o: UNet(3, 3, downs=7, dropout_at="port", **o), 128, 3, 7),
    "resnet_9blocks": (lambda **o: ResidualGenerator(3, 3, **o), 32, 3, 1),
    "resnet_6blocks": (lambda **o: ResidualGenerator(3, 3, blocks=6, **o), 32, 3, 1),
    "basic": (lambda **o: PatchDiscriminator(6, **o), 64, 6, 1),
    "n_layers_1": (lambda **o: PatchDiscriminator(6, layers=1, **o), 32, 6, 1),
    "n_layers_5": (lambda **o: PatchDiscriminator(6, layers=5, **o), 128, 6, 1),
    "pixel": (lambda **o: PatchDiscriminator(6, layers=0, **o), 16, 6, 1),
}
NAMES = [name for name in GOLDEN if ":" in name]


def shapes_of(name, base):
    """The network without memory, and how to make it."""
    kind, norm = name.split(":")
    special = {"dropout": {"norm": "batch", "dropout": 0.5}, "running": {"norm": "batch"}}
    options = special.get(norm, {"norm": norm})
    return nnx.eval_shape(lambda: CASES[kind][0](base=base, rngs=nnx.Rngs(0), **options))


def weights_of(net):
    return random_weights(shapes_there(net, table(net)))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture
def small():
    """The shapes of a small U-Net, and weights under the published names."""
    net = nnx.eval_shape(lambda: UNet(2, 2, downs=3, base=2, rngs=nnx.Rngs(0)))
    return net, weights_of(net)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_at_full_width(name):
    net = shapes_of(name, 64)
    published = {n: tuple(s) for n, s in SHAPES[name].items() if not n.endswith("num_batches_tracked")}
    assert shapes_there(net, table(net)) == published


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_pytorch_and_files_come_back(name, tmp_path):
    """With the files' numbers of batches, which are passed over; ``running`` as PyTorch's version does with --eval."""
    shapes = shapes_of(name, 2)
    weights = weights_of(shapes)
    counts = {n: np.array(7) for n in SHAPES[name] if n.endswith("num_batches_tracked")}
    write_weights(tmp_path / "published.safetensors", weights | counts)
    net = load_gan(tmp_path / "published.safetensors", shapes)
    _, side, channels, step = CASES[name.split(":")[0]]
    statistics = {"running": True} if name.endswith("running") else {}
    found = run(net, lambda net, x: net(x, **statistics), jnp.asarray(random_images(2, side, side, channels)))
    np.testing.assert_allclose(found[:, ::step, ::step], GOLDEN[name], rtol=1e-4, atol=1e-4)
    save_gan(tmp_path / "ours.safetensors", net)
    assert_same(read_weights(tmp_path / "ours.safetensors", {}, allow_unverified=True).weights, weights)


DCGAN = {
    "dcgan_generator": ((1, 1, 100), lambda net, x: net(x[:, 0, 0])[:, ::3, ::3]),
    "dcgan_generator_running": ((1, 1, 100), lambda net, x: net(x[:, 0, 0], running=True)[:, ::3, ::3]),
    "dcgan_discriminator": ((64, 64, 3), lambda net, x: net(x)[:, None, None, None]),
}


@pytest.mark.parametrize("name", DCGAN)
def test_dcgan_equals_pytorch_and_files_come_back(name, tmp_path):
    """The generator by statistics of the batch, and by those of the file."""
    shape, call = DCGAN[name]
    player = name.split("_")[1]
    full = nnx.eval_shape(lambda: dcgan.build(dcgan.Config(), nnx.Rngs(0)))[player]
    published = {n: tuple(s) for n, s in SHAPES[name].items() if not n.endswith("num_batches_tracked")}
    assert shapes_there(full, table(full)) == published
    shapes = nnx.eval_shape(lambda: dcgan.build(dcgan.Config(base=2), nnx.Rngs(0)))[player]
    write_weights(tmp_path / "published.safetensors", weights_of(shapes))
    net = load_gan(tmp_path / "published.safetensors", shapes)
    found = run(net, call, jnp.asarray(random_images(2, *shape)))
    np.testing.assert_allclose(found, GOLDEN[name], rtol=1e-4, atol=2e-6)
    assert_same(dump(net, table(net)), weights_of(shapes))


def test_what_does_not_fit_is_listed_and_nothing_changes(tmp_path, small):
    net = UNet(2, 2, downs=3, base=2, rngs=nnx.Rngs(0))
    before, weights = dump(net, table(net)), small[1]
    del weights["model.model.3.bias"], weights["model.model.1.model.2.running_var"]
    weights["model.model.0.weight"] = weights["model.model.0.weight"][:, :1]
    weights["model.model.1.model.7.weight"] = np.ones(3, np.float32)
    np.savez(tmp_path / "w.npz", **weights)
    with pytest.raises(InputError) as raised:
        load_gan(tmp_path / "w.npz", net)
    message = str(raised.value)
    assert "do not fit this UNet: missing: model.model." in message
    for part in (
        "model.model.3.bias",
        "model.model.1.model.2.running_var",
        "not understood: model.model.1.model.7.weight;",
        "of another shape: model.model.0.weight (2, 1, 4, 4), expected (2, 2, 4, 4). Nothing was changed",
    ):
        assert part in message
    assert_same(dump(net, table(net)), before)


def test_a_network_of_other_options_does_not_fit(tmp_path, small):
    np.savez(tmp_path / "w.npz", **small[1])
    for options in ({"downs": 4}, {"norm": "instance"}, {"skips": False}):
        other = nnx.eval_shape(lambda o=options: UNet(2, 2, rngs=nnx.Rngs(0), **{"base": 2, "downs": 3, **o}))
        with pytest.raises(InputError, match="do not fit this UNet"):
            load_gan(tmp_path / "w.npz", other)


def test_old_files_with_statistics_of_instance_normalisation(tmp_path):
    net = nnx.eval_shape(lambda: ResidualGenerator(1, 1, base=2, blocks=1, rngs=nnx.Rngs(0)))
    weights = weights_of(net)
    old = {f"model.2.{name}": np.ones(2, np.float32) for name in ("running_mean", "running_var")}
    np.savez(tmp_path / "w.npz", **weights, **old, **{"model.2.num_batches_tracked": np.array(1)})
    loaded = load_gan(tmp_path / "w.npz", net)
    assert_same(dump(loaded, table(loaded)), weights)


@pytest.mark.parametrize("norm", ["instance", "affine_instance", "batch", "none"])
def test_every_variable_of_every_network_has_one_name(norm):
    for make in (lambda o: UNet(1, 1, downs=3, **o), lambda o: ResidualGenerator(1, 1, **o)):
        net = nnx.eval_shape(lambda make=make: make({"base": 1, "norm": norm, "rngs": nnx.Rngs(0)}))
        assert len(shapes_there(net, table(net))) == len(table(net))


def test_other_networks_are_refused():
    with pytest.raises(InputError, match="a Linear came; expected UNet"):
        table(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
