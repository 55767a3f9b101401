"""Checkpoints that are verified when read: the newest intact one is used, a damaged one is named and set aside.

A checkpoint `<directory>/<step>` holds, as orbax items, `state` (every leaf of the training state under its path, such
as "params/generator/layers/0/kernel"; typed keys as key data), `leaves` (shape and dtype of each of them), `config` and
`progress`; and `checksums.json`, the checksum of every file of these items, which is written before orbax commits the
checkpoint. Orbax itself reads a changed byte inside a large array without a complaint.
"""

import contextlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqjax.errors import InputError

CHECKSUMS = "checksums.json"


class Restored(NamedTuple):
    """What `Checkpoints.restore` found."""

    step: int
    state: Any
    progress: dict
    damaged: tuple[int, ...]  # steps that were found damaged just now and set aside


class Checkpoints:
    """The checkpoints of one run, of which the newest `keep` stay. All processes make every call.

    A context manager: leaving it waits for the last save. A save that was cut off (kill -9) never becomes a
    checkpoint; what it left behind is removed by the next run.

    Raises:
      InputError: the directory cannot be made or written to.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int = 2):
        if keep < 1:
            raise InputError(f"keep: got {keep}, expected at least 1, the number of newest checkpoints that stay.")
        self.directory = _path(directory)
        _prepare(self.directory)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        self._saving = -1

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first, one that is being written included."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, *, config: dict, progress: dict) -> None:
        """Copies the state to the host, then writes it in the background; a step that is there already stays.

        Args:
          step: later than every step that has a checkpoint.
          state: a pytree of jax arrays; it may be donated as soon as this returns.
          config: what JSON can hold, enough to build the networks again.
          progress: what JSON can hold, whatever else a run needs in order to go on.

        Raises:
          InputError: there is a checkpoint of a later step; or this one or the one before cannot be written.
        """
        self.wait()
        if step in self.steps():
            return
        self._saving = step
        args = ocp.args.Composite(
            # Orbax refuses arrays without entries; there is nothing in them to save.
            state=ocp.args.StandardSave({p: x for p, x in _by_path(_as_data(state)).items() if x.size}),
            leaves=ocp.args.JsonSave(_describe(state)),
            config=ocp.args.JsonSave(config),
            progress=ocp.args.JsonSave(progress),
        )
        with self._writing():
            saved = self._manager.save(step, args=args)
        if not saved:
            raise InputError(
                f"step: got {step}, but {self.directory} has checkpoints of steps {self.steps()}. Restore before you "
                "save, or begin in a new directory."
            )

    def restore(self, abstract_state: Any, mesh: Mesh, shardings: Any = None) -> Restored | None:
        """The newest intact checkpoint, on the devices of the mesh, however many they are; None if there is none.

        A damaged checkpoint that is newer is named in a warning, moved to `<directory>/damaged/<step>` and listed in
        the result.

        Args:
          abstract_state: shapes and dtypes of the state, as `jax.eval_shape` gives them, or a state.
          mesh: every array goes to all of its devices.
          shardings: of every leaf of the state, where some are split; they may have been split otherwise when saved.

        Raises:
          InputError: there were checkpoints, but none is intact; or the newest intact one is of another structure.
        """
        self.wait()
        damaged: list[int] = []
        for step in reversed(self.steps()):
            fault = _fault(self.directory / str(step)) if jax.process_index() == 0 else ""
            if not multihost_utils.broadcast_one_to_all(np.array(bool(fault))):
                return Restored(step, *self._restored(step, abstract_state, mesh, shardings), tuple(damaged))
            self._set_aside(step, fault)
            damaged.append(step)
        aside = self.directory / "damaged"
        # Also those of earlier calls: the same command once more must not quietly begin anew.
        if names := sorted(path.name for path in aside.iterdir()) if aside.exists() else []:
            raise InputError(
                f"directory: no intact checkpoint is left in {self.directory}; the damaged ones (of steps "
                f"{', '.join(names)}) are kept in {aside}. Put back a good copy of one, or begin anew in a new "
                "directory."
            )
        return None

    def config(self) -> dict:
        """The configuration in the newest checkpoint in which it is intact."""
        self.wait()
        return _config(self.directory, self.steps())

    def wait(self) -> None:
        """Returns when everything saved so far is on disk.

        Raises:
          InputError: it cannot be written, for want of space for example; earlier checkpoints are untouched.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and ends the writing threads."""
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as a ValueError
            raise InputError(
                f"{self.directory}: the checkpoint of step {self._saving} cannot be written ({error}). The "
                "checkpoints before it are untouched: make room, then the same command continues from the newest."
            ) from error

    def _write_checksums(self) -> None:
        """Called by orbax when every file is written, before the checkpoint gets the name that makes it one."""
        if jax.process_index() != 0:
            return
        unfinished = list(self.directory.glob(f"{self._saving}{ocp.utils.TMP_DIR_SUFFIX}*"))
        checkpoint = (unfinished or [self.directory / str(self._saving)])[0]
        files = [file for item in checkpoint.iterdir() if item.is_dir() for file in _files(item)]
        sums = {file.relative_to(checkpoint).as_posix(): zlib.crc32(file.read_bytes()) for file in files}
        (checkpoint / CHECKSUMS).write_text(json.dumps(sums))

    def _restored(self, step: int, abstract: Any, mesh: Mesh, shardings: Any) -> tuple[Any, dict]:
        def read(_: epath.Path, wanted: Any) -> Any:
            return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted)))["state"]

        checkpoint = self.directory / str(step)
        whole = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), abstract)
        state = _read(checkpoint, abstract, whole if shardings is None else shardings, read)
        return state, _read_json(checkpoint / "progress")

    def _set_aside(self, step: int, fault: str) -> None:
        target = self.directory / "damaged" / str(step)
        if jax.process_index() == 0:
            logging.getLogger(__name__).warning("Checkpoint %s is damaged (%s), moved to %s.", step, fault, target)
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                target.rmtree()
            (self.directory / str(step)).rename(target)
        multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()


def read_config(directory: str | os.PathLike) -> dict:
    """The configuration in the newest checkpoint of a directory in which it is intact; changes nothing there.

    Raises:
      InputError: there is no such checkpoint.
    """
    path = _path(directory)
    if not path.is_dir():
        raise InputError(f"directory: {path} does not exist. Give the directory that a run's checkpoints are in.")
    return _config(path, ocp.utils.checkpoint_steps(path))


def read_state(directory: str | os.PathLike, abstract_state: Any) -> Any:
    """The state in the newest intact checkpoint of a directory, on one device; changes nothing there.

    Args:
      directory: of a run that may still be going.
      abstract_state: shapes and dtypes of the state, as `jax.eval_shape` gives them, or a state.

    Raises:
      InputError: there is no intact checkpoint; or the newest one is of another structure.
    """
    path = _path(directory)
    steps = ocp.utils.checkpoint_steps(path) if path.is_dir() else []
    intact = next((step for step in sorted(steps, reverse=True) if not _fault(path / str(step))), None)
    if intact is None:
        raise InputError(f"directory: {path} has no intact checkpoint. Give the directory of a run that has saved one.")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        shardings = jax.tree.map(lambda _: device, abstract_state)
        return _read(path / str(intact), abstract_state, shardings, checkpointer.restore)


def _read(checkpoint: epath.Path, abstract: Any, shardings: Any, read: Callable[[epath.Path, Any], Any]) -> Any:
    """The state of a checkpoint that was found intact; `read(item, wanted)` reads what orbax has written."""
    _check_structure(_read_json(checkpoint / "leaves"), abstract, str(checkpoint))
    places = _by_path(shardings)
    wanted = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[path])
        for path, leaf in _by_path(jax.eval_shape(_as_data, abstract)).items()
    }
    found = read(checkpoint / "state", {path: leaf for path, leaf in wanted.items() if leaf.size})
    empty = {p: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding) for p, leaf in wanted.items() if not leaf.size}
    arrays = [(found | empty)[path] for path in wanted]
    return jax.tree.map(_as_typed, abstract, jax.tree.unflatten(jax.tree.structure(abstract), arrays))


def _config(directory: epath.Path, steps: list[int]) -> dict:
    for step in sorted(steps, reverse=True):
        if not _fault(directory / str(step), "config/"):
            return _read_json(directory / str(step) / "config")
    raise InputError(f"directory: {directory} has no checkpoint with an intact configuration.")


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        yield from _files(path) if path.is_dir() else (path,)


def _fault(checkpoint: epath.Path, prefix: str = "") -> str:
    """What is wrong with a checkpoint's files, or those whose names begin with the prefix; empty if nothing is."""
    try:
        sums = json.loads((checkpoint / CHECKSUMS).read_text())
    except (FileNotFoundError, ValueError):
        return f"{CHECKSUMS} is missing or cannot be read"
    for name, checksum in sums.items():
        if name.startswith(prefix):
            if not (checkpoint / name).exists():
                return f"{name} is missing"
            if zlib.crc32((checkpoint / name).read_bytes()) != checksum:
                return f"{name} is not what was written"
    return ""


def _check_structure(leaves: dict[str, list], abstract: Any, name: str) -> None:
    wanted = _describe(abstract)
    for path in wanted | leaves:
        if leaves.get(path) != wanted.get(path):
            there, here = (" ".join(map(str, has.get(path, ["nothing"]))) for has in (leaves, wanted))
            raise InputError(
                f"abstract_state: at {path} the checkpoint {name} holds {there}, but {here} was asked for. Build the "
                "networks and optimisers from the configuration that is stored in the checkpoint, or begin in a new "
                "directory."
            )


def _describe(tree: Any) -> dict[str, list]:
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in _by_path(tree).items()}


def _read_json(item: epath.Path) -> Any:
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        return checkpointer.restore(item)


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_data(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _as_typed(abstract: Any, array: jax.Array) -> jax.Array:
    if not _is_key(abstract):
        return array
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(jnp.empty((), abstract.dtype)))


def _path(directory: str | os.PathLike) -> epath.Path:
    text = os.fspath(directory)
    return epath.Path(text if "://" in text else os.path.abspath(os.path.expanduser(text)))


def _prepare(directory: epath.Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            probe = directory / "can-write"
            probe.write_text("")
            probe.unlink()
    except OSError as error:
        raise InputError(
            f"directory: cannot write checkpoints to {directory} ({error}). Choose a directory that you may write to."
        ) from error
