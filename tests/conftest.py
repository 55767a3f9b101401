"""Shared test set-up: four simulated devices, strict promotion, one compilation cache for all workers.

What is compiled here runs a few times on a few numbers, so it is compiled quickly rather than well.
"""

import os
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=1",
        "--xla_force_host_platform_device_count=4",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "seqjax-test-cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import hypothesis
import jax
import jaxtyping
import pytest

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


@pytest.fixture(autouse=True, scope="module")
def _forget():
    """What one file has traced and compiled is in the way of the next: gigabytes, at the end."""
    yield
    jax.clear_caches()


def pytest_collection_modifyitems(items):
    """A file's tests share what they have made, and so a worker, unless they say themselves who shares one."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
