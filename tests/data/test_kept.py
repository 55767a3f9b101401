"""What a file keeps is computed again if, and only if, it is of something else or damaged."""

import numpy as np
import pytest

from seqjax.data.kept import kept_array


@pytest.fixture
def computed():
    return []


def array(path, fingerprint, computed):
    def compute():
        computed.append(fingerprint)
        return np.arange(len(fingerprint))

    return kept_array(path, fingerprint, compute).tolist()


def test_an_array_is_computed_once_for_each_fingerprint(tmp_path, computed):
    path = tmp_path / "a.npz"
    assert [array(path, "one", computed) for _ in range(3)] == [[0, 1, 2]] * 3
    assert computed == ["one"]
    assert array(path, "other", computed) == array(path, "other", computed) == [0, 1, 2, 3, 4]
    assert computed == ["one", "other"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "text", "other keys"])
def test_a_damaged_file_is_written_anew(tmp_path, computed, damage):
    path = tmp_path / "a.npz"
    array(path, "one", computed)
    content = path.read_bytes()
    if damage == "other keys":
        np.savez(path, array=np.arange(3))
    else:
        place = content.index(b"array.npy") + 60
        changed = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:-9], "changed": changed, "text": b"{}"}[damage])
    assert [array(path, "one", computed) for _ in range(2)] == [[0, 1, 2]] * 2
    assert computed == ["one"] * 2
    assert path.read_bytes() == content
