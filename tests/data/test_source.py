import importlib.util
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.published import message

from seqjax.data.moving_digits import NAMED, MovingDigits, MovingDigitsConfig
from seqjax.data.source import BUILDERS, SkipDamaged, Source, first, in_memory, mapped, open_source, part
from seqjax.errors import InputError

FIELDS = {"size": 32, "digit_size": 16, "digits": 1, "frames": 4, "train": 30, "validation": 20, "test": 10}


def tiny() -> MovingDigitsConfig:
    return MovingDigitsConfig(**FIELDS)


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory):
    """A prepared set that tests only read."""
    directory = tmp_path_factory.mktemp("data")
    open_source("moving_digits", split="train", config=tiny(), data_dir=directory)
    return directory


@pytest.fixture
def data_dir(shared_dir, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(shared_dir, tmp_path / "data")


def open_tiny(data_dir, split="train") -> Source:
    return open_source("moving_digits", split=split, config=tiny(), data_dir=data_dir)


def assert_same(record, expected):
    assert record.keys() == expected.keys()
    for key in expected:
        assert record[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(record[key], expected[key])


def test_records_are_the_clips_of_the_builder(shared_dir):
    for split in ("train", "validation", "test"):
        source = open_tiny(shared_dir, split)
        generated = list(MovingDigits(config=tiny(), data_dir=shared_dir)._generate_examples(split))
        assert isinstance(source, Source)
        assert len(source) == len(generated) == FIELDS[split]
        for i in reversed(range(len(source))):
            assert_same(source[i], generated[i][1])
        with pytest.raises(IndexError):
            source[len(source)]


def test_only_the_entries_that_are_asked_for(tmp_path):
    whole = open_source("scenes", split="train", config="tiny", data_dir=tmp_path)
    expected = [whole[i] for i in range(3)]
    assert "image" in expected[0]
    only = ("captions", "index")
    texts = open_source("scenes", split="train", config="tiny", data_dir=tmp_path, only=only)
    for i, record in enumerate(expected):
        assert texts[i].keys() == set(only)
        assert texts[i]["captions"].tolist() == record["captions"].tolist()
        assert texts[i]["index"] == record["index"]


def test_mapped_records_are_read_when_asked_for():
    read = []

    def double(record):
        read.extend(record["x"].tolist())
        return {"y": 2 * record["x"]}

    source = mapped([{"x": np.array([i])} for i in range(5)], double)
    assert isinstance(source, Source)
    assert len(source) == 5
    assert read == []
    assert source[3]["y"] == 6
    assert read == [3]
    assert in_memory(source)[4]["y"] == 8
    assert source.damaged == {}


def test_some_records_in_an_order_of_ones_own():
    class Torn(list):
        damaged = {4: "torn", 0: "lost"}  # noqa: RUF012

    some = part(Torn({"x": np.array(i)} for i in range(6)), [4, 1, 3])
    assert isinstance(some, Source)
    assert [int(some[i]["x"]) for i in range(len(some))] == [4, 1, 3]
    assert some.damaged == {0: "torn"}
    assert part(Torn(), range(0)).damaged == part([1, 2], range(2)).damaged == {}


def test_one_batch_of_the_first():
    records = [{"a": np.full(2, i), "b": np.int64(-i)} for i in range(3)]
    batch = first(records, 2)
    assert {key: value.tolist() for key, value in batch.items()} == {"a": [[0, 0], [1, 1]], "b": [0, -1]}
    assert {key: value.tolist() for key, value in first(records, 9, "b").items()} == {"b": [0, -1, -2]}


def test_part_of_a_split(shared_dir):
    whole, part = open_tiny(shared_dir), open_tiny(shared_dir, "train[50%:80%]")
    assert len(part) == 9
    for i in range(9):
        assert_same(part[i], whole[15 + i])


def test_prepared_once(shared_dir, monkeypatch):
    monkeypatch.setattr(MovingDigits, "_generate_examples", lambda self, split: pytest.fail("prepared again"))
    assert len(open_tiny(shared_dir)) == 30


@pytest.mark.parametrize("moment", ["download_and_prepare", "_generate_examples"])
def test_another_process_prepares_at_the_same_time(moment, tmp_path, monkeypatch):
    """The other one, simulated at the start or in the midst of preparing, finishes first: its set is used."""
    method = getattr(MovingDigits, moment)
    others = []

    def interrupted(self, *args, **kwargs):
        if not others:
            others.append(None)
            others[0] = open_tiny(tmp_path)
        return method(self, *args, **kwargs)

    monkeypatch.setattr(MovingDigits, moment, interrupted)
    source = open_tiny(tmp_path)
    assert_same(source[29], others[0][29])
    (version_dir,) = (tmp_path / "moving_digits" / tiny().name).iterdir()
    assert version_dir.name == "1.0.0"  # nothing is left over


def test_environment_names_the_directory(shared_dir, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(shared_dir))
    monkeypatch.setattr(MovingDigits, "_generate_examples", lambda self, split: pytest.fail("looked elsewhere"))
    assert len(open_source("moving_digits", split="test", config=tiny())) == 10


def test_unknown_name(tmp_path):
    text = message("moving_digit", split="train", data_dir=tmp_path)
    assert "'moving_digit'" in text
    assert str([builder.name for builder in BUILDERS]) in text
    assert "'mnist'" in message("mnists", split="train", data_dir=tmp_path)
    assert "'moving digits'" in message("moving digits", split="train", data_dir=tmp_path)


def test_unknown_configuration(tmp_path):
    text = message("moving_digits", split="train", config="three_64", data_dir=tmp_path)
    assert "'three_64'" in text
    assert str(list(NAMED)) in text
    taken = MovingDigitsConfig(name="two_64", frames=5)
    assert "'tiny_16']" in message("moving_digits", split="train", config=taken, data_dir=tmp_path)


@pytest.mark.parametrize("split", ["training", "train[", "train[40:]"])
def test_unknown_split(shared_dir, split):
    text = message("moving_digits", split=split, config=tiny(), data_dir=shared_dir)
    assert repr(split) in text
    assert "['train', 'validation', 'test']" in text


def test_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    text = message("moving_digits", split="train", config=tiny(), data_dir=tmp_path / "file")
    assert str(tmp_path / "file") in text
    assert "TFDS_DATA_DIR" in text


@pytest.mark.parametrize("name", ["moving_mnist", "ucf101"])
def test_some_videos_need_tensorflow(name, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    tfds.list_builders(with_community_datasets=False)  # TFDS registers what it can import, once
    monkeypatch.delitem(tfds.core.registered._DATASET_REGISTRY, name, raising=False)
    text = message(name, split="test", data_dir=tmp_path)
    assert 'pip install "seqjax[prepare]"' in text
    assert "TensorFlow" in text


def test_translations_are_known_in_a_fresh_process(tmp_path):
    """Where TensorFlow is not there TFDS itself does not know them before something else has imported them."""
    code = "import sys; from seqjax.data.source import _find; print(_find('wmt14_translate', None, sys.argv[1]).info)"
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "Translation(" in said.stdout


def test_preparing_that_needs_tensorflow(tmp_path, monkeypatch):
    def generate(self, split):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(MovingDigits, "_generate_examples", generate)
    assert "seqjax[prepare]" in message("moving_digits", split="test", config=tiny(), data_dir=tmp_path)


def test_a_set_prepared_in_another_format(data_dir):
    (info,) = data_dir.rglob("dataset_info.json")
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    assert "in the array_record format: delete that directory" in message(
        "moving_digits", split="train", config=tiny(), data_dir=data_dir
    )


def records_file(data_dir):
    (file,) = data_dir.rglob("moving_digits-train.array_record*")
    return file


def unreadable(source) -> dict[int, str]:
    errors = {}
    for i in range(len(source)):
        try:
            source[i]
        except InputError as error:
            errors[i] = str(error)
    return errors


@pytest.mark.parametrize("keep", [0, 1000, 65_536, 70_000, -1])
def test_truncated_file(data_dir, keep):
    file = records_file(data_dir)
    file.write_bytes(file.read_bytes()[:keep])
    errors = unreadable(open_tiny(data_dir))
    assert errors
    for i, text in errors.items():
        assert f"Record {i} of the split 'train' of moving_digits/{tiny().name}/1.0.0" in text
        assert str(file.parent) in text
        assert "Delete that directory and run again" in text
        assert "\n" not in text
    assert len(open_tiny(data_dir, "validation")) == 20


def test_flipped_bits_are_noticed_and_nothing_else_is_lost(data_dir):
    """Each record, in turn: a bit of its stored frames flipped; that record alone is refused."""
    file = records_file(data_dir)
    sound = file.read_bytes()
    intact = [open_tiny(data_dir)[i] for i in range(30)]
    serialized = MovingDigits(config=tiny(), data_dir=data_dir).as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    for i in (0, 13, 29):
        place = sound.index(serialized[i][-40:])
        file.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        source = open_tiny(data_dir)
        assert list(unreadable(source)) == [i]
        assert_same(source[(i + 1) % 30], intact[(i + 1) % 30])


def damage(data_dir, *indices) -> None:
    """Flips a bit of each of these training records on disk."""
    file = records_file(data_dir)
    serialized = MovingDigits(config=tiny(), data_dir=data_dir).as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    content = bytearray(file.read_bytes())
    for i in indices:
        content[content.index(serialized[i][-40:])] ^= 4
    file.write_bytes(content)


def test_damaged_records_are_skipped_counted_and_listed(data_dir, caplog):
    intact = in_memory(open_tiny(data_dir))
    damage(data_dir, 3, 4, 29)
    source = SkipDamaged(open_tiny(data_dir), limit=0.1)
    assert isinstance(source, Source)
    stand_in = {3: 5, 4: 5, 29: 0}
    for _ in range(2):
        for i in range(30):
            assert_same(source[i], intact[stand_in.get(i, i)])
    assert sorted(source.damaged) == [3, 4, 29]
    assert caplog.text.count("Damaged record skipped") == 3  # once each
    for i, reason in source.damaged.items():
        assert f"Record {i} of the split 'train' of moving_digits/{tiny().name}" in reason
        assert reason in caplog.text
    assert "3 of 30 so far" in caplog.text
    kept = in_memory(mapped(SkipDamaged(open_tiny(data_dir), limit=0.1), dict))
    assert kept.damaged.keys() == source.damaged.keys()
    for i in range(30):
        assert_same(kept[i], source[i])
    with pytest.raises(IndexError):
        source[30]


def test_damage_past_the_limit(data_dir):
    damage(data_dir, 3, 20)
    within, past = SkipDamaged(open_tiny(data_dir), limit=2 / 30), SkipDamaged(open_tiny(data_dir), limit=1.9 / 30)
    assert_same(within[20], within[21])
    assert_same(within[3], within[4])
    assert_same(past[20], past[21])
    for _ in range(2):  # and from then on
        with pytest.raises(InputError) as caught:
            past[3]
        text = str(caught.value)
        assert "2 of 30 records are damaged" in text
        assert f"limit={1.9 / 30}: 3, 20. Record 3 of the split 'train'" in text
        assert "run again to prepare the set anew" in text
        assert "\n" not in text
    for strict in (SkipDamaged(open_tiny(data_dir)), SkipDamaged(open_tiny(data_dir), limit=0.0)):
        with pytest.raises(InputError, match=r"1 of 30 records"):
            strict[3]


@pytest.mark.parametrize("limit", [0.01, 0.999])
def test_a_missing_file_ends_at_the_limit(data_dir, limit):
    records_file(data_dir).unlink()
    with pytest.raises(InputError, match=rf"{int(30 * limit) + 1} of 30 records"):
        SkipDamaged(open_tiny(data_dir), limit=limit)[17]


@pytest.mark.parametrize("limit", [-0.01, 1.0, float("nan")])
def test_limit_that_is_no_share(limit):
    with pytest.raises(InputError, match=f"limit={limit} "):
        SkipDamaged([], limit=limit)


def test_threads_that_meet_a_damaged_record_at_once_count_it_once(caplog):
    """Each of eight threads is held in the failing read until all are there, and then lets the others go first."""
    together = threading.Barrier(8)

    class Slow(InputError):
        def __str__(self):
            time.sleep(0.01)
            return super().__str__()

    class Damaged(list):
        def __getitem__(self, index):
            if index == 0:
                together.wait(timeout=60)
                raise Slow("Record 0 is damaged.")
            return super().__getitem__(index)

    source = SkipDamaged(Damaged([{"a": np.zeros(1)}] * 200))
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(source.__getitem__, [0] * 8))) == 8
    assert source.damaged == {0: "Record 0 is damaged."}
    assert caplog.text.count("Damaged record skipped, 1 of 200 so far: Record 0") == 1


def test_record_that_does_not_decode(data_dir, monkeypatch):
    source = open_tiny(data_dir)
    monkeypatch.setattr(tfds.features.FeaturesDict, "deserialize_example_np", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match=r"Record 3 .*division by zero"):
        source[3]


def test_missing_file(data_dir):
    records_file(data_dir).unlink()
    assert len(unreadable(open_tiny(data_dir))) == 30


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_description(data_dir, damage):
    (file,) = data_dir.rglob("dataset_info.json")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    text = message("moving_digits", split="train", config=tiny(), data_dir=data_dir)
    assert str(data_dir / "moving_digits") in text
    assert "delete that directory and run again" in text


def test_in_memory_equals_the_source(shared_dir):
    source = open_tiny(shared_dir)
    kept = in_memory(source)
    assert isinstance(kept, Source)
    assert len(kept) == len(source)
    for i in range(len(source)):
        assert_same(kept[i], source[i])
        assert all(isinstance(value, np.ndarray) for value in kept[i].values())
    with pytest.raises(IndexError):
        kept[30]
    with pytest.raises(ValueError, match="read-only"):
        kept[0]["video"][0] = 1


def test_in_memory_refuses_what_does_not_stack():
    records = [{"video": np.zeros((2, 4, 4, 1), np.uint8)}, {"video": np.zeros((3, 4, 4, 1), np.uint8)}]
    with pytest.raises(InputError, match=r"record 1 has .*uint8\[3, 4, 4, 1\].* record 0 has .*uint8\[2, 4, 4, 1\]"):
        in_memory(records)
    with pytest.raises(InputError, match="record 1"):
        in_memory([{"a": np.zeros(2)}, {"b": np.zeros(2)}])
    with pytest.raises(InputError, match="without records"):
        in_memory([])
