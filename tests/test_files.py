"""``seqjax.files``: whole files or none."""

import os
import subprocess
import sys

from seqjax.files import replace_file


def test_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a"
    replace_file(path, b"first")
    replace_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a"]


def test_full_disk_is_explained_and_leaves_the_earlier_file(tmp_path):
    # A limit on the size of a file fails a write half way, as a full disk does.
    code = """
import resource, sys
from seqjax.errors import InputError
from seqjax.files import replace_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    replace_file(sys.argv[1], b"x" * 5000)
except InputError as error:
    print(error)
"""
    path = tmp_path / "a"
    path.write_bytes(b"good")
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert f"{path} cannot be written (File too large)" in out.stdout
    assert "--workdir" in out.stdout
    assert path.read_bytes() == b"good"
    assert os.listdir(tmp_path) == ["a"]
