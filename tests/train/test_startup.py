"""What happens before the first step: devices counted, the banner, compiled programs kept, a trace of some steps."""

import itertools
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import psutil
import pytest

from seqjax.errors import InputError
from seqjax.train import startup
from seqjax.train.profile import Profile
from seqjax.train.startup import banner, digest, start

CONFIG = {"loop": {"steps": 3, "devices": None, "profile": None}, "seed": 0, "workdir": "a"}


def test_other_devices_than_expected_end_the_run_with_what_to_check():
    with pytest.raises(InputError, match=r"loop.devices: 8 expected, 4 found \(4 cpu devices in process 0 of 1\)"):
        start(CONFIG, devices=8)


def test_the_banner_says_where_and_what(capsys):
    start(CONFIG, devices=4)
    said = capsys.readouterr().out
    assert "process 0 of 1; 4 of 4 cpu devices here; mesh data=4" in said
    assert f"jax {jax.__version__}" in said
    assert f"configuration {digest(CONFIG)}" in said
    assert said == banner(CONFIG, os.environ["JAX_COMPILATION_CACHE_DIR"]) + "\n"


def test_a_run_begins_with_its_process_and_a_second_with_its_call(monkeypatch):
    monkeypatch.setattr(startup, "_runs", itertools.count())
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "recipe.py", raising=False)
    assert start(CONFIG) == psutil.Process().create_time()
    before = time.time()
    assert before <= start(CONFIG) <= time.time()


def test_the_digest_is_of_what_is_trained():
    elsewhere = CONFIG | {"workdir": "b", "loop": {"steps": 3, "devices": 4, "profile": "1:2"}}
    assert digest(elsewhere) == digest(CONFIG)
    assert digest(CONFIG | {"seed": 1}) != digest(CONFIG)


CACHED = """
import jax, json, jax.numpy as jnp
from seqjax.train.startup import keep_compiled_programs, programs
directory = keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
print(json.dumps([directory, programs()]))
"""


def cached(tmp_path, **variables):
    """Where programs were kept, and the counts, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), **variables}
    command = [sys.executable, "-c", CACHED]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    directory, cold = cached(tmp_path)
    assert directory.startswith(str(tmp_path))
    assert cold["compiled"] > 0
    assert cold["loaded"] == 0
    _, warm = cached(tmp_path)
    assert warm["compiled"] == 0
    assert warm["loaded"] == cold["compiled"]


def test_jax_may_be_told_where_to_keep_programs_and_not_to(tmp_path):
    assert cached(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))[0] == str(tmp_path / "mine")
    assert cached(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false") == [None, {}]


def test_a_cache_directory_that_cannot_be_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    assert cached(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file"), HOME=str(tmp_path / "file")) == [None, {}]


def test_the_named_steps_are_traced(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: calls.append(("start", step, directory)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append(("stop", step)))
    with Profile("3:4", tmp_path) as profile:
        for step in range(1, 7):
            profile.before(step)
            profile.after(step, jnp.zeros(()))
    assert calls == [("start", 3, tmp_path), ("stop", 4)]


def test_a_trace_is_ended_where_the_run_ends_early_and_can_be_read(tmp_path):
    with Profile("1:9", tmp_path) as profile:
        profile.before(1)
        jnp.ones(3).block_until_ready()
    (trace,) = tmp_path.rglob("*.xplane.pb")
    assert trace.stat().st_size > 0


@pytest.mark.parametrize("steps", ["4", "5:4", "a:b", "-1:4"])
def test_steps_to_trace_that_make_no_range_are_named(steps, tmp_path):
    with pytest.raises(InputError, match=r"loop\.profile: got"):
        Profile(steps, tmp_path)
