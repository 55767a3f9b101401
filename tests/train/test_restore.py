"""``train.restore``: the networks of a run from its directory alone."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from seqjax.errors import InputError
from seqjax.models.prediction import convlstm
from seqjax.nn.split import split
from seqjax.train.checkpoint import Checkpoints
from seqjax.train.config import to_dict
from seqjax.train.restore import restore
from seqjax.train.step import minimise

RECIPE = types.SimpleNamespace(
    Config=convlstm.Config,
    build=convlstm.build,
    learner=lambda config: minimise(convlstm.loss, optax.adam(1e-3), ema={"forecaster": 0.9}),
)


@pytest.fixture
def run(tmp_path):
    """Two checkpoints whose averaged parameters are known: 1 and 2."""
    config = convlstm.Config.tiny()
    state = RECIPE.learner(config).init(convlstm.build(config, nnx.Rngs(0)), jax.random.key(0))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2):
            ema = jax.tree.map(lambda x, step=step: jnp.full_like(x, step), state.params)
            checkpoints.save(step, state._replace(ema=ema), config=to_dict(config), progress={})
    return tmp_path, config


def files(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def test_newest_averaged_parameters_come_back_and_nothing_is_touched(run):
    workdir, config = run
    before = files(workdir)
    found, nets = restore(workdir, RECIPE)
    assert found == config
    assert {float(x) for leaf in jax.tree.leaves(split(nets).params) for x in np.unique(leaf)} == {2.0}
    assert files(workdir) == before


def test_a_damaged_checkpoint_is_passed_over_and_left_where_it_is(run):
    workdir, _ = run
    (workdir / "checkpoints" / "2" / "checksums.json").write_text("{}"[:1])
    before = files(workdir)
    _, nets = restore(workdir, RECIPE)
    assert {float(x) for leaf in jax.tree.leaves(split(nets).params) for x in np.unique(leaf)} == {1.0}
    assert files(workdir) == before


def test_no_run_there(tmp_path):
    with pytest.raises(InputError, match="checkpoints"):
        restore(tmp_path, RECIPE)
