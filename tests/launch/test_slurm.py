"""The SLURM template, run by bash with stand-ins for srun, squeue and scontrol that write down what they are told."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "experiments/launch/slurm.sbatch"
RECIPE = ["experiments.prediction.convlstm", "paper", "--workdir", "/shared/two words"]
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$LOG/srun"
[ "$BEHAVIOUR" = wait ] || exit "$BEHAVIOUR"
trap 'echo TERM > "$LOG/signal"; sleep 0.3; exit 75' TERM
touch "$LOG/ready"
while true; do sleep 0.05; done
"""


@pytest.fixture
def job(tmp_path):
    stubs = {"srun": SRUN, "scontrol": '#!/bin/bash\necho "$@" > "$LOG/scontrol"\n'}
    stubs["squeue"] = '#!/bin/bash\necho "${STATE:-RUNNING}"\n'
    for name, text in stubs.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def start(behaviour, *recipe, **environment):
        told = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(tmp_path), "BEHAVIOUR": str(behaviour)}
        told |= {"SLURM_JOB_ID": "42", "PYTHON": "env/bin/python"} | environment
        pipe = subprocess.PIPE
        line = ["bash", str(TEMPLATE), *recipe]
        started.append(subprocess.Popen(line, cwd=tmp_path, env=os.environ | told, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    started = []
    yield start
    for process in started:
        process.communicate(timeout=10)


def requeued(folder):
    path = folder / "scontrol"
    return path.read_text().split() == ["requeue", "42"] if path.exists() else False


def test_bash_reads_it():
    subprocess.run(["bash", "-n", TEMPLATE], check=True)


def test_the_recipe_reaches_every_task(job, tmp_path):
    assert job(0, *RECIPE).wait(10) == 0
    *options, python, unbuffered, module, first, second, third, fourth = (tmp_path / "srun").read_text().splitlines()
    assert all(option.startswith("--") for option in options)
    assert "--kill-on-bad-exit=0" in options
    assert [python, unbuffered, module, first, second, third, fourth] == ["env/bin/python", "-u", "-m", *RECIPE]


@pytest.mark.parametrize(
    ("status", "again"), [(0, False), (1, False), (2, False), (3, False), (75, True), (137, False)]
)
def test_75_alone_is_queued_again(job, tmp_path, status, again):
    process = job(status, *RECIPE)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == status
    assert f"status {status}" in out
    assert requeued(tmp_path) == (status == 75)


def test_sigterm_reaches_srun_and_its_status_counts(job, tmp_path):
    process = job("wait", *RECIPE)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 75
    assert (tmp_path / "signal").read_text() == "TERM\n"
    assert requeued(tmp_path)


def test_a_cancelled_job_is_not_queued_again(job, tmp_path):
    assert job(75, *RECIPE, STATE="CANCELLED").wait(10) == 75
    assert not requeued(tmp_path)


def test_restarts_have_an_end(job, tmp_path):
    job(75, *RECIPE, RESTARTS="3", SLURM_RESTART_COUNT="3").wait(10)
    assert not requeued(tmp_path)
    job(75, *RECIPE, RESTARTS="3", SLURM_RESTART_COUNT="2").wait(10)
    assert requeued(tmp_path)


def test_no_recipe_is_status_2(job, tmp_path):
    process = job(0)
    assert "no recipe given" in process.communicate(timeout=10)[1]
    assert process.returncode == 2
    assert not (tmp_path / "srun").exists()


def test_directives_keep_out_of_the_traps():
    found = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", TEMPLATE.read_text(), re.MULTILINE))
    assert found["gres"] == f"gpu:{found['ntasks-per-node']}"
    assert "gpus-per-task" not in found
    assert found["signal"].startswith("B:TERM@")
    assert found["open-mode"] == "append"
    assert "requeue" in found
    # After the first command sbatch reads no more of them.
    code = [line for line in TEMPLATE.read_text().splitlines() if line and not line.startswith("#")]
    assert not any("#SBATCH" in line for line in TEMPLATE.read_text().split(code[0])[1].splitlines())
