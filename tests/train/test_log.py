"""seqjax.train.log: what is written, read back with `json` and with TensorBoard's own record format."""

import io
import json
import math
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from seqjax.errors import InputError
from seqjax.train.log import Logs, read_metrics


def events(workdir):
    """All events, oldest file first. A record is length (8 bytes), checksum (4), event, checksum (4)."""
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.suffix):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def write(workdir, steps, **options):
    with Logs(workdir, **options) as logs:
        for step in steps:
            logs.write(step, "train", {"loss": 1 / (step + 1)})


def steps_of(workdir):
    return [line["step"] for line in read_metrics(workdir / "metrics.jsonl")]


def test_line_is_one_json_object_with_sorted_plain_floats(tmp_path):
    with Logs(tmp_path) as logs:
        logs.write(5, "train", {"b": jnp.float32(0.5), "a": np.int64(3)})
        logs.write(5, "evaluation", {"ssim_by_frame": [1, 0.5], "ssim": 0.75})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == [
        '{"step": 5, "kind": "train", "a": 3.0, "b": 0.5}',
        '{"step": 5, "kind": "evaluation", "ssim": 0.75, "ssim_by_frame": [1.0, 0.5]}',
    ]
    assert read_metrics(tmp_path / "metrics.jsonl") == [json.loads(line) for line in lines]


def test_numbers_that_are_not_finite_survive(tmp_path):
    with Logs(tmp_path) as logs:
        logs.write(1, "train", {"a": math.nan, "b": math.inf, "c": -jnp.inf, "d": [0.0, math.inf]})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["a"] == "nan"
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(line["a"])
    assert (line["b"], line["c"], line["d"]) == (math.inf, -math.inf, [0.0, math.inf])
    values = [value.simple_value for event in events(tmp_path) for value in event.summary.value]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


def test_every_line_is_readable_at_once(tmp_path):
    with Logs(tmp_path) as logs:
        for step in range(3):
            logs.write(step, "train", {"loss": 0.0})
            assert steps_of(tmp_path)[-1] == step
            assert [event.step for event in events(tmp_path)][-1] == step


def test_resumed_log_has_neither_gap_nor_double(tmp_path):
    write(tmp_path, range(6))
    write(tmp_path, range(4, 8), resume_step=3)
    assert steps_of(tmp_path) == list(range(8))
    write(tmp_path, range(2))
    assert steps_of(tmp_path) == [0, 1]


def test_tensorboard_is_told_which_events_are_void(tmp_path):
    write(tmp_path, range(6))
    write(tmp_path, range(4, 8), resume_step=3)
    starts = [event.step for event in events(tmp_path) if event.session_log.status == SessionLog.START]
    assert starts == [0, 4]
    shown = [event.step for event in events(tmp_path) if event.summary.value]
    assert shown == [*range(6), *range(4, 8)]
    assert len(os.listdir(tmp_path / "tensorboard")) == 2


@pytest.mark.parametrize("end", ['{"step": 4, "ki', '{"step": 4, "kind": "train", "loss": 0', "\0\0\0", "12"])
def test_torn_last_line_is_dropped(tmp_path, end):
    write(tmp_path, range(4))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(end)
    assert steps_of(tmp_path) == [0, 1, 2, 3]
    write(tmp_path, range(4, 6), resume_step=3)
    assert steps_of(tmp_path) == list(range(6))


def test_damaged_line_is_named_by_the_reader_and_dropped_by_the_run(tmp_path, caplog):
    write(tmp_path, range(4))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 1', '"st'))
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 2"):
        read_metrics(path)
    write(tmp_path, [4], resume_step=3)
    assert steps_of(tmp_path) == [0, 2, 3, 4]
    assert "1 damaged lines were dropped" in caplog.text


def test_video_and_image_reach_tensorboard(tmp_path):
    video = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 1), np.uint8)
    with Logs(tmp_path) as logs:
        logs.video(2, "samples", video, scale=2)
        logs.image(2, "grid", video[0])
    found = {value.tag: value.image for event in events(tmp_path) for value in event.summary.value}
    samples = Image.open(io.BytesIO(found["samples"].encoded_image_string))
    assert (found["samples"].height, found["samples"].width, found["samples"].colorspace) == (8, 12, 1)
    assert (samples.size, samples.n_frames) == ((12, 8), 3)
    grid = Image.open(io.BytesIO(found["grid"].encoded_image_string))
    np.testing.assert_array_equal(grid.convert("L"), video[0, :, :, 0])


def test_other_processes_leave_nothing(tmp_path):
    with Logs(tmp_path / "run", active=False) as logs:
        logs.write(1, "train", {"loss": 0.0})
        logs.image(1, "grid", np.zeros((2, 2, 1), np.uint8))
    assert os.listdir(tmp_path) == []


def test_metric_cannot_take_the_name_of_a_column(tmp_path):
    with Logs(tmp_path) as logs, pytest.raises(ValueError, match="'kind'"):
        logs.write(1, "train", {"kind": 1.0})


def test_work_directory_that_cannot_be_is_explained(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot be written \(.*--workdir"):
        Logs(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="cannot be read"):
        read_metrics(tmp_path / "run" / "metrics.jsonl")


FULL = """
import resource, sys
from seqjax.errors import InputError
from seqjax.train.log import Logs
try:
    with Logs(sys.argv[1]) as logs:
        logs.write(0, "train", {"loss": 0.0})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for step in range(1, 100):
            logs.write(step, "train", {"loss": 0.0})
except InputError as error:
    print(error)
"""


def test_full_disk_ends_the_run_with_a_reason_and_keeps_what_was_written(tmp_path):
    out = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert "cannot be written (File too large)" in out.stdout
    assert out.stderr == ""
    steps = steps_of(tmp_path)
    assert 0 < len(steps) < 99
    assert steps == list(range(len(steps)))
