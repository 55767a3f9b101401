"""Shared test set-up: four simulated devices, strict promotion, one compilation cache for all workers.

What is compiled here runs a few times on a few numbers, so it is compiled quickly rather than well.
"""

import gc
import importlib.metadata
import os
import re
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        # Compiles in half the time; from 0.11 on there is one way only.
        "--xla_cpu_use_fusion_emitters=false" if int(importlib.metadata.version("jaxlib").split(".")[1]) < 11 else "",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "seqjax-test-cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import hypothesis
import jax
import jaxtyping
import pytest
from xdist.scheduler import LoadScopeScheduling

# Tracing makes objects by the million, few of them garbage: by default much of the time is spent looking.
gc.set_threshold(20_000, 20)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("suite", deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def unchecked():
    """Switch the type checks of the test run off, as they are for a user."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def float64():
    """Double precision, where a test asks for it."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    """What one file has traced and compiled is in the way of the next: gigabytes, at the end."""
    yield
    jax.clear_caches()


def pytest_collection_finish():
    """What is imported stays: it need not be looked through each time that garbage is collected."""
    gc.collect()
    gc.freeze()


class Together(LoadScopeScheduling):
    """A file's tests share what they have made, and so a worker; those of a recipe or a system, which is compiled and
    trained once, share one of their own, whatever their file."""

    def _split_scope(self, nodeid: str) -> str:
        trained = re.search(r"\[(?:experiments\.)?([a-z]+[./][a-z_0-9]+)\b", nodeid)
        return trained[1] if trained else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    """Not ``--dist=loadgroup``, whose groups are lost with pytest 9."""
    return Together(config, log)
