"""The compiled data-parallel step of every system: what it does in place, and what the devices say to each other.

Read from the program that XLA made for four devices. On this backend its pass that combines all-reduces runs.
"""

import math
import re
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from laws.programs import program
from laws.systems import SYSTEMS

from seqjax.nn.split import split
from seqjax.train.mesh import compile_step, make_mesh, replicate, shard_batch
from seqjax.train.step import minimise, repeat

# Where examples act on one another, as by batch statistics or a history, more has to be exchanged.
NAMES = pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.by_parts])
PARALLEL = pytest.mark.parametrize("parallel", ["jit", "pmap"])
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}


class Collective(NamedTuple):
    kind: str
    once: bool
    """Whether it is in the program itself, not in the body of a loop."""
    bytes: int


def collectives(text):
    found, computation = [], ""
    for line in text.splitlines():
        computation = line if line[:1] in ("%", "E") else computation
        name = r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
        if match := re.search(rf" = (.*?) {name}(?:-start)?\(", line):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            size = sum(BYTES[kind] * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in shapes)
            found.append(Collective(match[2], computation.startswith("ENTRY"), size))
    return found


def system(name, parallel, in_parts=False):
    """The state and the compiled step on four devices."""
    begin, _, step = program(name, 4, parallel, in_parts=in_parts)
    return begin(), step


def size(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@PARALLEL
@NAMES
def test_the_state_is_updated_in_place(name, parallel):
    """Every leaf of the new state is written where the old one was, and no array of the old one is copied before."""
    state, program = system(name, parallel)
    text = program.as_text()
    header, main = text.splitlines()[0], text[text.index("\nENTRY") :]
    pairs = re.findall(r"\{(\d+)\}: \((\d+), \{\}, may-alias\)", header)
    assert [(int(new), int(old)) for new, old in pairs] == [(i, i) for i in range(len(jax.tree.leaves(state)))]
    assert program.memory_analysis().alias_size_in_bytes == size(state._replace(key=jax.random.key_data(state.key)))
    arrays = re.findall(r"(%[\w.]+) = f32\[\d\S+ parameter\(", main)
    assert len(arrays) >= len(jax.tree.leaves((state.params, state.opt, state.ema))) - 2 * len(state.opt)  # its counts
    copied = [name for name in arrays if re.search(rf" copy(-start)?\({re.escape(name)}\)", main)]
    # What loops in both directions read as it is may be: an attention's score.
    assert not [name for name in copied if not re.search(rf"{re.escape(name)} = .*\.score\.", main)]


@NAMES
def test_a_per_device_step_has_one_all_reduce_for_each_player(name):
    """Gradients, loss, metrics and statistics together: a few numbers more than the parameters."""
    state, program = system(name, "pmap")
    found = collectives(program.as_text())
    players = SYSTEMS[name].losses.values()
    assert [(c.kind, c.once) for c in found] == [("all-reduce", True)] * len(players)
    for collective, trained in zip(found, players, strict=True):
        gradients = size([state.params[net] for net in trained])
        once = gradients - 4 * SYSTEMS[name].twins
        assert once < collective.bytes <= gradients + size(state.rest) + 40


@NAMES
def test_a_step_on_the_whole_batch_gathers_nothing(name):
    """No device computes what another has; gradients travel once.

    What the loop over time adds up itself (peepholes, biases of a cell without inputs), XLA's CPU backend adds up
    over devices in the loop: small vectors, once per step of the sequence. `parallel="pmap"` has nothing of the kind.
    """
    state, program = system(name, "jit")
    found = collectives(program.as_text())
    assert {c.kind for c in found} == {"all-reduce"}
    if not jax.tree.leaves(state.rest):  # statistics of the whole batch are all-reduced where they are wanted
        assert sum(c.once for c in found) == len(SYSTEMS[name].losses)
    parameters, in_loops = size(state.params), sum(c.bytes for c in found if not c.once)
    assert parameters - in_loops < sum(c.bytes for c in found if c.once) + 40
    assert in_loops < 0.05 * parameters


@NAMES
def test_parameters_in_parts_are_gathered_once_for_each_player(name):
    """Before they are used; nothing else is exchanged but the gradients, and the norms that are reported."""
    state, program = system(name, "jit", in_parts=True)
    found, players = collectives(program.as_text()), len(SYSTEMS[name].losses)
    parts = size([leaf for leaf in jax.tree.leaves(state.params) if not leaf.is_fully_replicated])
    gathered = [c for c in found if c.kind == "all-gather"]
    assert all(c.once for c in gathered)
    assert 0 < sum(c.bytes for c in gathered) <= players * parts
    assert {c.kind for c in found} == {"all-gather", "all-reduce"}


@NAMES
def test_a_device_does_its_part_of_the_work(name):
    """As a per-device step, which reads nothing but its part of the batch."""
    flops = {parallel: system(name, parallel)[1].cost_analysis()["flops"] for parallel in ("jit", "pmap")}
    assert flops["jit"] < 1.1 * flops["pmap"]


def loss(nets, batch, *, key):
    y = nets["net"](batch)
    return ((y - batch**2) ** 2).mean(), {"mean": y.mean(), "draw": jax.random.normal(key)}


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_statistics_travel_with_the_gradients(inner_steps):
    nets, mesh = {"net": nnx.BatchNorm(4, rngs=nnx.Rngs(0))}, make_mesh()
    batch = np.ones((8, 4), np.float32) if inner_steps == 1 else np.ones((inner_steps, 8, 4), np.float32)
    learner = minimise(loss, optax.adam(0.1))
    state = learner.init(nets, jax.random.key(0))
    learner = repeat(learner, inner_steps) if inner_steps > 1 else learner
    step = compile_step(learner, split(nets).graphs, mesh, "pmap", inner_steps=inner_steps)
    program = step.lower(replicate(state, mesh), shard_batch(batch, mesh, inner_steps=inner_steps)).compile()
    ((kind, once, bytes_),) = collectives(program.as_text())
    assert (kind, once) == ("all-reduce", inner_steps == 1)
    assert bytes_ == size((state.params, state.rest)) + 3 * 4  # loss, mean, draw
