"""Files of weights and tables of names: what comes back is what was written, and what does not fit is listed."""

import hashlib
import pickle
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from seqjax.convert.files import read_weights, write_weights
from seqjax.convert.table import CONV, DENSE, SAME, Entry, dump, load, shapes_there
from seqjax.errors import InputError


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (5, 4), rngs=rngs)
        self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)
        self.out = nnx.Linear(3, 7, rngs=rngs)


TABLE = {
    "0.weight": Entry("conv.kernel", CONV),
    "0.bias": Entry("conv.bias"),
    "1.weight": Entry("norm.scale"),
    "1.bias": Entry("norm.bias"),
    "1.running_mean": Entry("norm.mean"),
    "1.running_var": Entry("norm.var"),
    "2.weight": Entry("out.kernel", DENSE),
    "2.bias": Entry("out.bias"),
}
SHAPES = {"0.weight": (3, 2, 5, 4), "0.bias": (3,)} | {f"1.{n}": (3,) for n in ("weight", "bias", "running_mean")}
SHAPES |= {"1.running_var": (3,), "2.weight": (7, 3), "2.bias": (7,)}


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype


def test_load_puts_every_array_in_its_place_and_dump_brings_it_back(weights):
    abstract = nnx.eval_shape(lambda: Net(nnx.Rngs(0)))
    assert shapes_there(abstract, TABLE) == SHAPES
    net = load(abstract, weights, TABLE, source="a test")
    for o, c, i, j in np.ndindex(3, 2, 5, 4):
        assert net.conv.kernel[i, j, c, o] == weights["0.weight"][o, c, i, j]
    np.testing.assert_array_equal(net.out.kernel[...], weights["2.weight"].T)
    np.testing.assert_array_equal(net.norm.var[...], weights["1.running_var"])
    found = dump(net, TABLE)
    assert_same(found, weights)
    assert all(array.flags.writeable for array in found.values())


def test_load_leaves_the_network_as_it_is_and_keeps_its_types(weights):
    net = Net(nnx.Rngs(0))
    before = dump(net, TABLE)
    half = {name: array.astype(np.float16) for name, array in weights.items()}
    again = load(net, half, TABLE, source="a test")
    assert_same(dump(again, TABLE), {name: array.astype(np.float32) for name, array in half.items()})
    assert_same(dump(net, TABLE), before)


def test_everything_that_does_not_fit_is_listed_and_nothing_changes(weights):
    net = Net(nnx.Rngs(0))
    before = dump(net, TABLE)
    del weights["1.bias"]
    weights |= {"0.weight": weights["0.weight"].T, "3.weight": np.ones(1), "steps": np.ones(())}
    with pytest.raises(InputError) as raised:
        load(net, weights, TABLE, source="a net of tests", ignored=(r"^steps$",))
    expected = "do not fit a net of tests: missing: 1.bias; not understood: 3.weight; of another shape: "
    expected += "0.weight (4, 5, 2, 3), expected (3, 2, 5, 4). Nothing was changed."
    assert expected in str(raised.value)
    assert_same(dump(net, TABLE), before)


def test_a_long_list_is_cut(weights):
    with pytest.raises(InputError, match=r"not understood: x0; .*x9; x10; x11 and 88 more;"):
        load(Net(nnx.Rngs(0)), weights | {f"x{k}": np.ones(1) for k in range(100)}, TABLE, source="a test")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"2.bias": None}, "out.bias"),
        ({"3.bias": Entry("out.scale")}, "out.scale"),
        ({"3.bias": Entry("out.bias")}, "out.bias"),
    ],
)
def test_a_table_has_one_entry_for_every_variable(change, named):
    table = {name: entry for name, entry in (TABLE | change).items() if entry is not None}
    with pytest.raises(InputError, match=f"table: {named} stand"):
        dump(Net(nnx.Rngs(0)), table)


@pytest.mark.parametrize("layout", [SAME, DENSE, CONV])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_layouts_are_undone(layout, shape):
    array = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(layout.write(layout.read(array)), array)


def test_safetensors_round_trip_whatever_the_strides(tmp_path, weights):
    weights["0.weight"] = np.asfortranarray(weights["0.weight"])
    write_weights(tmp_path / "w.safetensors", weights | {"view": weights["2.weight"].T[::2]})
    file = read_weights(tmp_path / "w.safetensors", {}, allow_unverified=True)
    assert_same(file.weights, weights | {"view": weights["2.weight"].T[::2]})
    assert_same(safetensors.numpy.load_file(tmp_path / "w.safetensors"), file.weights)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert file.sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert not file.verified


def test_npz_without_pickles(tmp_path, weights):
    np.savez(tmp_path / "w.npz", **weights)
    assert_same(read_weights(tmp_path / "w.npz", {}, allow_unverified=True).weights, weights)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"objects\.npz cannot be read"):
        read_weights(tmp_path / "objects.npz", {}, allow_unverified=True)


def test_only_files_on_record_are_read_unless_allowed(tmp_path, weights):
    path = tmp_path / "w.safetensors"
    write_weights(path, weights)
    with pytest.raises(InputError, match=r"not on record \(the one: 1234\).*allow_unverified=True"):
        read_weights(path, {"1234": "the one"})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weights(path, {digest: "the one"}).verified


@pytest.mark.parametrize("name", ["w.bin", "none.npz"])
def test_refuses_other_kinds_and_missing_files(tmp_path, name):
    (tmp_path / "w.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected a file of weights that ends in \.safetensors"):
        read_weights(tmp_path / name, {}, allow_unverified=True)
    with pytest.raises(InputError, match=r"written as \.safetensors"):
        write_weights(tmp_path / name, {})


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_damaged_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x10 nothing of the kind")
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        read_weights(tmp_path / name, {}, allow_unverified=True)


class Exploding:
    def __reduce__(self):
        return pytest.fail, ("the pickle was run",)


@pytest.mark.parametrize("name", ["w.pth", "w.npz", "w.safetensors"])
def test_a_pickle_is_never_run(tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / name).write_bytes(pickle.dumps({"a": Exploding()}))
    with pytest.raises(InputError):
        read_weights(tmp_path / name, {}, allow_unverified=True)


def test_pth_needs_torch_and_is_read_by_its_weights_only_loading(tmp_path, monkeypatch):
    """A stand-in for torch: the tests do without it."""
    path = tmp_path / "w.pth"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="read by torch, which is not installed"):
        read_weights(path, {}, allow_unverified=True)

    class Tensor:
        def detach(self):
            return self

        def numpy(self):
            return np.arange(3.0)

    held = [{"a": Tensor()}]

    def torch_load(given, *, map_location, weights_only):
        if isinstance(held[0], Exception):
            raise held[0]
        assert (given, map_location, weights_only) == (path, "cpu", True)
        return held[0]

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=torch_load, Tensor=Tensor))
    assert_same(read_weights(path, {}, allow_unverified=True).weights, {"a": np.arange(3.0)})
    for odd in ({"optimizer": {}}, [Tensor()], pickle.UnpicklingError("set weights_only=False")):
        held[0] = odd
        with pytest.raises(InputError, match=r"w.pth cannot be read by torch's weights-only loading"):
            read_weights(path, {}, allow_unverified=True)


def test_loaded_network_runs(weights):
    net = load(Net(nnx.Rngs(0)), weights, TABLE, source="a test")
    assert net.out(jnp.ones((2, 3))).shape == (2, 7)
