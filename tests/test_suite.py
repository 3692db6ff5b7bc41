"""The suite's own habits: one thread a process, nothing left out, slow files first."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_a_process_has_one_thread_and_so_have_those_it_starts() -> None:
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]]


def test_make_test_leaves_nothing_out() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    command = dict(re.findall(r"^([\w-]+):.*\n\t(.*)$", makefile, re.MULTILINE))
    assert command["test"] == "$(BIN)/python -m pytest -n $(PROCESSES)"
    assert command["test-fast"] == f"{command['test']} -m 'not slow'"
    assert "make test\n" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_files_with_slow_tests_come_first(request: pytest.FixtureRequest) -> None:
    slow = {item.path for item in request.session.items if item.get_closest_marker("slow")}
    order = [item.path in slow for item in request.session.items]
    assert order == sorted(order, reverse=True)
