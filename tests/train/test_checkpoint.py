"""Checkpoints: bit-for-bit round trips, every kind of damage to every file, kills, other devices, other processes."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqjax.errors import InputError
from seqjax.train.checkpoint import Checkpoints, read_config
from seqjax.train.mesh import make_mesh, replicate
from seqjax.train.state import State

CONFIG = {"model": {"sizes": [3, 5]}, "seed": 1}


class Gates(NamedTuple):
    kernel: jax.Array
    bias: jax.Array | None


def make_state(step: int, width: int = 300) -> State:
    """All that a state may hold: integer and string keys, tuples, None, empty things, every kind of number, keys."""
    draw = np.random.default_rng(step).normal
    params = {
        "net": {
            "layers": {i: {"kernel": jnp.asarray(draw(size=(width, 90)), jnp.float32)} for i in (0, 1, 10)},
            "cell": (
                Gates(jnp.asarray(draw(size=4), jnp.bfloat16), None),
                Gates(jnp.zeros((0, 3)), jnp.float32(1e-42)),
            ),
            "complex": jnp.asarray(draw(size=3) + 1j * draw(size=3), jnp.complex64),
        }
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(0.1)))
    rest = {"net": {"mask": jnp.array([True, False]), "count": jnp.int8(-3), "special": jnp.array([jnp.nan, -0.0])}}
    keys = {"pool": jax.random.split(jax.random.key(step), 3), "rbg": jax.random.key(step, impl="rbg")}
    return State(jnp.int32(step), params, rest | keys, {"all": tx.init(params)}, {}, jax.random.key(step))


def raw(tree):
    """Every leaf's type, shape and bytes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    data = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for _, x in leaves]
    return [(path, x.shape, str(x.dtype), np.asarray(d).tobytes()) for (path, x), d in zip(leaves, data, strict=True)]


def assert_same(state, expected):
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert raw(state) == raw(expected)


def abstract(**options):
    return jax.eval_shape(lambda: make_state(0, **options))


def write(directory, *steps, **options):
    with Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), config=CONFIG, progress={"seconds": step / 8})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with checkpoints of steps 10 and 20, to be copied."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    write(directory, 10, 20)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_state_comes_back_bit_for_bit_on_any_number_of_devices(copy, devices):
    mesh = make_mesh(jax.devices()[:devices])
    with Checkpoints(copy) as checkpoints:
        restored = checkpoints.restore(abstract(), mesh)
    assert (restored.step, restored.progress, restored.damaged) == (20, {"seconds": 2.5}, ())
    assert_same(restored.state, make_state(20))
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(restored.state.params))
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(restored.state)} == {devices}
    assert jax.random.bits(restored.state.rest["rbg"]) == jax.random.bits(make_state(20).rest["rbg"])


def test_a_state_saved_from_four_devices_is_restored_onto_one(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, replicate(make_state(1), make_mesh()), config={}, progress={})
        restored = checkpoints.restore(abstract(), make_mesh(jax.devices()[:1]))
    assert_same(restored.state, make_state(1))


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    """What is saved is the state at the call, though its memory is overwritten at once, many times over."""
    overwrite = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            array = jnp.arange(3e6) + step
            expected = np.array(array)
            checkpoints.save(step, {"array": array}, config={}, progress={})
            for _ in range(20):
                array = overwrite(array)
            restored = checkpoints.restore({"array": array}, make_mesh(jax.devices()[:1]))
            np.testing.assert_array_equal(restored.state["array"], expected)


def test_the_newest_are_kept_and_a_fresh_directory_has_none(tmp_path):
    with Checkpoints(tmp_path / "a" / "b") as checkpoints:
        assert checkpoints.restore(abstract(), make_mesh()) is None
        assert checkpoints.steps() == []
    write(tmp_path / "a" / "b", 1, 2, 3)
    write(tmp_path / "c", 1, 2, 3, 4, keep=3)
    with Checkpoints(tmp_path / "a" / "b") as two, Checkpoints(tmp_path / "c", keep=3) as three:
        assert two.steps() == [2, 3]
        assert three.steps() == [2, 3, 4]


def test_a_step_is_saved_once_and_never_behind_a_later_one(copy):
    with Checkpoints(copy) as checkpoints:
        checkpoints.save(20, make_state(21), config={}, progress={})
        assert_same(checkpoints.restore(abstract(), make_mesh()).state, make_state(20))
        with pytest.raises(InputError, match=r"step: got 15, .* steps \[10, 20\]"):
            checkpoints.save(15, make_state(15), config={}, progress={})


def test_the_configuration_can_be_read_from_the_directory_alone(copy):
    names = sorted(path.name for path in copy.rglob("*"))
    assert read_config(copy) == CONFIG
    assert sorted(path.name for path in copy.rglob("*")) == names
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.config() == CONFIG
        checkpoints.save(30, make_state(30), config={"tuple": (1, 2), 10: None, 9: 0.1}, progress={})
        assert checkpoints.config() == {"tuple": [1, 2], "10": None, "9": 0.1}
    (copy / "30" / "config" / "metadata").write_text("{")
    assert read_config(copy) == CONFIG


def changes(content: bytes):
    """Ways to damage a file, by name: None deletes it."""
    flipped = {f"byte {i}": content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :] for i in (0, len(content) // 3)}
    return {"deleted": None, "cut": content[: len(content) // 2]} | flipped


def test_damage_to_any_file_is_noticed_and_costs_that_checkpoint_only(saved, tmp_path, caplog):
    """Step 20 is set aside and step 10 comes back bit for bit; only orbax's own notes at the top can be spared."""
    mesh, expected = make_mesh(jax.devices()[:1]), {step: raw(make_state(step)) for step in (10, 20)}
    files = [path.relative_to(saved) for path in (saved / "20").rglob("*") if path.is_file()]
    assert len(files) > 15
    for number, file in enumerate(files):
        for change, content in changes((saved / file).read_bytes()).items():
            copy = tmp_path / f"{number} {change}"
            shutil.copytree(saved, copy, copy_function=os.link)
            (copy / file).unlink()
            if content is not None:
                (copy / file).write_bytes(content)
            caplog.clear()
            with Checkpoints(copy) as checkpoints:
                step, state, _, damaged = checkpoints.restore(abstract(), mesh)
            spared = str(file) in ("20/_CHECKPOINT_METADATA", "20/commit_success.txt")
            assert (step, damaged) == ((20, ()) if spared else (10, (20,))), (file, change)
            assert raw(state) == expected[step], (file, change)
            if not spared:
                assert "Checkpoint 20 is damaged" in caplog.text
                assert sorted(path.name for path in copy.iterdir()) == ["10", "damaged"]
                assert [path.name for path in (copy / "damaged").iterdir()] == ["20"]


def test_a_changed_byte_inside_an_array_is_noticed(copy):
    """Orbax reads it without a complaint, as reading it without the checksums shows."""
    file = max((copy / "20").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    shutil.copytree(copy, copy.with_name("unchecked"))
    (copy.with_name("unchecked") / "20" / "checksums.json").write_text("{}")
    with Checkpoints(copy) as checked, Checkpoints(copy.with_name("unchecked")) as unchecked:
        assert unchecked.restore(abstract(), make_mesh()).step == 20
        restored = checked.restore(abstract(), make_mesh())
    assert (restored.step, restored.damaged) == (10, (20,))


def test_a_changed_digit_in_the_progress_is_noticed(copy):
    file = copy / "20" / "progress" / "metadata"
    assert json.loads(file.read_text()) == {"seconds": 2.5}
    file.write_text('{"seconds": 3.5}')
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.restore(abstract(), make_mesh()).progress == {"seconds": 1.25}


def test_a_run_goes_on_over_the_place_of_a_damaged_checkpoint(copy):
    for round_ in (1, 2):
        (copy / "20" / "leaves" / "metadata").write_text("")
        with Checkpoints(copy) as checkpoints:
            assert checkpoints.restore(abstract(), make_mesh()).damaged == (20,), round_
            assert checkpoints.steps() == [10]
            checkpoints.save(20, make_state(20), config=CONFIG, progress={})
            assert_same(checkpoints.restore(abstract(), make_mesh()).state, make_state(20))


def test_a_run_whose_checkpoints_are_all_damaged_never_begins_anew(copy):
    for step in (10, 20):
        (copy / str(step) / "leaves" / "metadata").write_text("")
    for _ in range(2):
        with (
            Checkpoints(copy) as checkpoints,
            pytest.raises(InputError, match=r"no intact checkpoint is left .* \(of steps 10, 20\) are kept"),
        ):
            checkpoints.restore(abstract(), make_mesh())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: abstract(width=301),
            "params/net/layers/0/kernel .* holds \\[300, 90\\] float32, but \\[301, 90\\] float32",
        ),
        (lambda: abstract()._replace(ema={"net": jnp.ones(2)}), r"ema/net .* holds nothing, but \[2\] float32"),
        (lambda: abstract()._replace(opt={}), r"opt/all/1/0/count .* holds .. int32, but nothing"),
        (lambda: abstract()._replace(step=jnp.float32(0)), "at step .* holds .. int32, but .. float32"),
    ],
)
def test_another_structure_is_an_error_not_damage(copy, change, message):
    with Checkpoints(copy) as checkpoints:
        with pytest.raises(InputError, match=message):
            checkpoints.restore(change(), make_mesh())
        assert checkpoints.steps() == [10, 20]
        assert not (copy / "damaged").exists()


def test_directories_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=f"directory: cannot write checkpoints to {path}"):
            Checkpoints(path)
    with pytest.raises(InputError, match="none does not exist"):
        read_config(tmp_path / "none")
    with pytest.raises(InputError, match="no checkpoint with an intact configuration"):
        read_config(tmp_path)
    with pytest.raises(InputError, match="keep: got 0"):
        Checkpoints(tmp_path, keep=0)


def run(*processes: tuple[str, Path, dict[str, str]]) -> list[tuple[int, str]]:
    """Exit status and output of Python processes that run side by side, given code, an argument and variables."""
    with contextlib.ExitStack() as stack:
        running = []
        for code, argument, variables in processes:
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(argument)],
                cwd=Path(__file__).parents[2],
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            running.append(stack.enter_context(process))
            stack.callback(process.kill)
        outputs = [process.communicate(timeout=120)[0] for process in running]
    return [(process.returncode, output) for process, output in zip(running, outputs, strict=True)]


KILLED = """
import os, signal, sys
import jax
from seqjax.train.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in (10, 20):
    array = jax.random.normal(jax.random.key(step), 4_000_000)
    checkpoints.save(step, {"array": array}, config={}, progress={})
    if step == 10:
        checkpoints.wait()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_save_that_was_killed_is_no_checkpoint_and_is_cleaned_up(tmp_path):
    ((status, output),) = run((KILLED, tmp_path, {}))
    assert status == -9, output
    left = {path.name for path in tmp_path.iterdir()}
    assert "10" in left
    assert len(left) == 2
    assert "20" not in left
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore({"array": jnp.zeros(4_000_000)}, make_mesh())
        np.testing.assert_array_equal(restored.state["array"], jax.random.normal(jax.random.key(10), 4_000_000))
        checkpoints.save(30, restored.state, config={}, progress={})
    assert {path.name for path in tmp_path.iterdir()} == {"10", "30"}


TWO_PROCESSES = """
import sys
from pathlib import Path
import jax, numpy as np, optax
from flax import nnx
from jax.experimental import multihost_utils
from seqjax.nn.split import split
from seqjax.train.checkpoint import Checkpoints
from seqjax.train.mesh import compile_step, make_mesh, replicate, shard_batch, start_distributed
from seqjax.train.step import minimise

start_distributed()
mesh, nets = make_mesh(), {"net": nnx.BatchNorm(3, rngs=nnx.Rngs(0))}
learner = minimise(lambda nets, x, *, key: (((nets["net"](x) - x**2) ** 2).mean(), {}), optax.adam(0.1))
step = compile_step(learner, split(nets).graphs, mesh)
batch = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
part = np.split(batch, jax.process_count())[jax.process_index()]
initial = learner.init(nets, jax.random.key(0))
with Checkpoints(sys.argv[1]) as checkpoints:
    state = replicate(initial, mesh)
    for n in (1, 2):
        state, metrics = step(state, shard_batch(part, mesh))
        checkpoints.save(n, state, config={}, progress={})
    checkpoints.wait()
    if jax.process_index() == 0:
        (Path(sys.argv[1]) / "2" / "leaves" / "metadata").write_text("")
    multihost_utils.sync_global_devices("damaged")
    restored = checkpoints.restore(initial, mesh)
    assert (restored.step, restored.damaged, checkpoints.steps()) == (1, (2,), [1])
    state, again = step(restored.state, shard_batch(part, mesh))
    assert float(again["loss"]) == float(metrics["loss"])
    checkpoints.save(2, state, config={}, progress={})
print("loss", float(metrics["loss"]), jax.process_count(), jax.device_count())
"""


def test_two_processes_train_save_and_restore_as_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_COORDINATOR_ADDRESS": address}
    numbered = [common | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(i)} for i in range(2)]
    alone = (TWO_PROCESSES, tmp_path / "one", {"JAX_NUM_PROCESSES": "1"})
    results = run(*((TWO_PROCESSES, tmp_path / "two", variables) for variables in numbered), alone)
    losses = [re.search(r"loss (\S+) (\d) (\d)", output) for _, output in results]
    assert all(losses), results
    assert [found.group(2, 3) for found in losses] == [("2", "4"), ("2", "4"), ("1", "4")]
    np.testing.assert_allclose([float(found.group(1)) for found in losses], float(losses[2].group(1)), rtol=1e-6)
    with Checkpoints(tmp_path / "two") as two:
        assert two.steps() == [1, 2]
