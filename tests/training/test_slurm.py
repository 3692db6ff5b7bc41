"""Training under Slurm, whose srun starts every task alike."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reprism.cli import main
from reprism.training.recipes import Recipe, write_recipe


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


# Two tasks of srun, as Slurm starts them: the same command at once, told apart by the environment alone.
def test_of_several_tasks_of_srun_the_first_alone_writes_and_prints(
    people: Path, tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    settings = recipe_of(people, trainer={"devices": 2}, data={"ids_per_batch": 2}, optimizer={"epochs": 1})
    write_recipe(settings, recipe := tmp_path / "recipe.json")
    tasks, port = [], free_port()
    for rank in (0, 1):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PL_"))},
            "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        command = [sys.executable, "-m", "reprism", "train", str(recipe), "--out", str(tmp_path / "run")]
        with (tmp_path / f"{rank}.out").open("w") as out, (tmp_path / f"{rank}.err").open("w") as err:
            tasks.append(subprocess.Popen(command, stdout=out, stderr=err, env=environment))
    for task in tasks:
        task.wait()
    said = [[(tmp_path / f"{rank}.{name}").read_text() for name in ("out", "err")] for rank in (0, 1)]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "mAP" in said[0][0]
    assert said[1][0] == ""
    assert "Epoch" not in said[1][1]
    assert sorted(path.name for path in (tmp_path / "run" / "csv").iterdir()) == ["version_0"]
    logs = (tmp_path / "run" / "tensorboard").glob("events.*")
    assert {log.suffixes[-2] for log in logs} == {f".{tasks[0].pid}"}


def test_tasks_of_srun_that_would_each_train_alone_are_refused(
    people: Path, tmp_path: Path, recipe_of: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    write_recipe(recipe_of(people), tmp_path / "recipe.json")
    assert main(["train", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]) == 1
    assert "srun started 4 tasks" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
