"""Inception for FID and VGG against PyTorch (``golden_feature_nets.py``), with weights that went through a file."""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert.random_weights import random_images, random_weights
from flax import nnx
from nn.filled import run

from seqjax.convert import inception, vgg
from seqjax.convert.files import write_weights
from seqjax.convert.table import dump, load, shapes_there
from seqjax.errors import InputError
from seqjax.metrics.features import extract
from seqjax.metrics.inception import feature_net
from seqjax.nn.inception import Inception, prepare
from seqjax.nn.split import count
from seqjax.nn.vgg import VGG

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "feature_nets.npz"))
SHAPES = json.loads(GOLDEN["shapes"].item())
FULL = {
    "inception": (lambda: Inception(rngs=nnx.Rngs(0)), inception.table, 23_850_960),
    "vgg16": (lambda: VGG(16, rngs=nnx.Rngs(0)), vgg.table, 14_714_688),
    "vgg19": (lambda: VGG(19, rngs=nnx.Rngs(0)), vgg.table, 20_024_384),
}


def small(make, table):
    """A narrow network with the weights that PyTorch had."""
    abstract = nnx.eval_shape(make)
    return load(abstract, random_weights(shapes_there(abstract, table(abstract))), table(abstract), source="a test")


@pytest.fixture(scope="module")
def net():
    return small(lambda: Inception(classes=10, shrink=16, rngs=nnx.Rngs(0)), inception.table)


@pytest.mark.parametrize("name", FULL)
def test_names_shapes_and_number_of_parameters_at_full_size(name):
    """Inception: torchvision's 27,161,264 less the auxiliary head's 3,326,696 plus eight classes. VGG: its features."""
    make, table, number = FULL[name]
    abstract = nnx.eval_shape(make)
    assert count({"net": abstract}) == number
    assert shapes_there(abstract, table(abstract)) == {n: tuple(shape) for n, shape in SHAPES[name].items()}


def test_inception_equals_pytorch(net):
    features, logits = jax.jit(lambda x: (net.features(x), net(x)))(jnp.asarray(random_images(2, 107, 91, 3)))
    np.testing.assert_allclose(features, GOLDEN["inception:features"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, GOLDEN["inception:logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [16, 19])
def test_vgg_equals_pytorch_layer_by_layer(depth):
    net = small(lambda: VGG(depth, shrink=16, rngs=nnx.Rngs(0)), vgg.table)
    layers = {16: ("conv1_1", "relu1_1", "pool1", "relu4_1", "pool5"), 19: ("relu1_2", "relu4_1", "pool5")}[depth]
    places = {16: (0, 1, 4, 18, 30), 19: (3, 20, 36)}[depth]
    found = net(jnp.asarray(random_images(2, 32, 48, 3)), layers)
    assert list(found) == [name for name in net.names() if name in layers]
    for name, place in zip(layers, places, strict=True):
        np.testing.assert_allclose(found[name], GOLDEN[f"vgg{depth}:{place}"], rtol=1e-4, atol=1e-4, err_msg=name)


def test_vgg_computes_nothing_above_the_last_layer_asked_for():
    net = small(lambda: VGG(16, shrink=64, rngs=nnx.Rngs(0)), vgg.table)
    program = jax.make_jaxpr(lambda x: net(x, ["relu2_1"]))(jnp.zeros((1, 8, 8, 3)))
    assert str(program).count("conv_general_dilated[") == 3
    with pytest.raises(InputError, match=r"VGG-16 has no \['relu6_1'\]"):
        net(jnp.zeros((1, 8, 8, 3)), ["relu6_1"])


@pytest.mark.parametrize("protocol", ["pytorch-fid", "clean-fid"])
@pytest.mark.parametrize("size", [20, 320])
def test_resize_equals_the_protocols_own(protocol, size):
    """PyTorch's interpolate and Pillow's resize, from a smaller and a larger image: to a hundredth of a grey level."""
    found = prepare(jnp.asarray(random_images(1, size, size, 3)), protocol)
    assert found.shape == (1, 299, 299, 3)
    np.testing.assert_allclose(found[:, ::13, ::13], GOLDEN[f"resize:{protocol}:{size}"], atol=8e-5)


def test_preparation_starts_from_eight_bits_and_takes_grey_for_colour():
    images = jnp.asarray(random_images(1, 20, 20, 1))
    colour = jnp.repeat(images, 3, axis=-1)
    np.testing.assert_array_equal(prepare(images + 1e-3, "clean-fid"), prepare(colour, "clean-fid"))
    with pytest.raises(InputError, match="images of 2 channels"):
        prepare(jnp.zeros((1, 8, 8, 2)), "clean-fid")


def test_feature_net_has_the_names_of_the_field_for_published_weights_only(net):
    published, own = feature_net(net, "abc", True), feature_net(net, "abc", False)
    features, probabilities = extract(published, random_images(1, 20, 20, 3), batch=1)
    np.testing.assert_allclose(features, GOLDEN["fid:features"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probabilities, GOLDEN["fid:probabilities"], rtol=1e-4, atol=1e-5)
    kinds = ("fd", "kid", "score", "recall")
    assert [published.figure(k) for k in kinds] == ["fid", "kid", "is", "inception-recall"]
    assert [own.figure(k) for k in kinds] == [f"inception-unverified-{k}" for k in kinds]
    assert feature_net(net, "abc", True, protocol="clean-fid").figure("fd") == "clean-fid"
    assert "not verified" in own.protocol


def test_loaders_read_files_and_pass_over_what_is_known_to_be_more(tmp_path, monkeypatch):
    make = lambda **options: VGG(options.pop("depth", 16), shrink=64, **options)  # noqa: E731
    monkeypatch.setattr(vgg, "VGG", lambda depth, top, rngs: make(depth=depth, top=top, rngs=rngs))
    net = small(lambda: make(rngs=nnx.Rngs(0)), vgg.table)
    weights = dump(net, vgg.table(net))
    write_weights(tmp_path / "a.safetensors", weights | {"classifier.0.weight": np.ones((2, 2), np.float32)})
    again = vgg.load_vgg(tmp_path / "a.safetensors", allow_unverified=True)
    for name, array in dump(again, vgg.table(again)).items():
        np.testing.assert_array_equal(array, weights[name])
    with pytest.raises(InputError, match="not on record"):
        vgg.load_vgg(tmp_path / "a.safetensors")


def test_dense_layers_of_vgg_are_convolutions():
    """On the whole of an image: products with the published matrices, the map flattened channel by channel."""
    net = small(lambda: VGG(16, top=True, shrink=64, rngs=nnx.Rngs(0)), vgg.table)
    weights = dump(net, vgg.table(net))
    found = run(net, lambda net, x: net(x, ["pool5", "relu6", "relu7"]), jnp.asarray(random_images(1, 224, 224, 3)))
    assert found["pool5"].shape == (1, 7, 7, 8)
    h = np.asarray(found["pool5"]).transpose(0, 3, 1, 2).reshape(1, -1)
    for layer, place in (("relu6", 0), ("relu7", 3)):
        h = np.maximum(h @ weights[f"classifier.{place}.weight"].T + weights[f"classifier.{place}.bias"], 0)
        np.testing.assert_allclose(found[layer], h[:, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("depth", "number"), [(16, 138_357_544), (19, 143_667_240)])
def test_vgg_has_all_published_parameters_but_those_of_the_classes(depth, number):
    net = nnx.eval_shape(lambda: VGG(depth, top=True, rngs=nnx.Rngs(0)))
    assert count({"net": net}) == number - 1000 * 4097
    shapes = shapes_there(net, vgg.table(net))
    assert shapes["classifier.0.weight"] == (4096, 25088)
    assert shapes["classifier.3.weight"] == (4096, 4096)


def test_loader_of_inception(tmp_path, monkeypatch, net):
    monkeypatch.setattr(inception, "Inception", lambda rngs: Inception(classes=10, shrink=16, rngs=rngs))
    weights = dump(net, inception.table(net))
    counts = {"Mixed_5b.branch1x1.bn.num_batches_tracked": np.zeros((), np.int64)}
    write_weights(tmp_path / "a.safetensors", weights | counts)
    digest = hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    monkeypatch.setitem(inception.KNOWN, digest, "a test")
    loaded = inception.load_inception(tmp_path / "a.safetensors")
    assert loaded[1:] == (digest, True)
    found = dump(loaded.net, inception.table(loaded.net))
    assert found.keys() == weights.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, weights[name])
