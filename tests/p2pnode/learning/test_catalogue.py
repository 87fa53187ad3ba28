"""The catalogue: complete, in bounds, readable without torch, and open to plug-ins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pnode.learning.catalogue import TASKS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_defaults_are_in_bounds(name):
    task = TASKS[name]
    assert task.name == name
    assert task.summary
    assert task.steps >= 1
    assert task.local_batch >= 1
    assert 0 <= task.momentum < 1
    assert task.lr > 0
    assert task.lr_decay_every >= 0


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_image_tasks_have_monnas_settings(name):
    task = TASKS[name]
    assert (task.local_batch, task.momentum, task.lr, task.lr_decay_every) == (25, 0.99, 0.75, 50)
    assert task.needs_data_dir


def test_the_embedded_task_needs_no_files():
    assert not TASKS["digits"].needs_data_dir


def test_importing_the_catalogue_imports_only_the_standard_library():
    script = (
        "import sys; import p2pnode.learning.catalogue; "
        "print([name for name in ('torch', 'numpy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# Plug-ins.

MODULE = """
from p2pnode.learning.catalogue import TaskDefaults

class Line:
    defaults = TaskDefaults("line", "a line", False, steps=3, local_batch=2, momentum=0.5, lr=0.1, lr_decay_every=0)

    def build(self, data_dir):
        import torch
        from torch import nn
        from p2pnode.learning.data import Dataset
        from p2pnode.learning.task import Task, accuracy

        x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
        return Task("line", lambda: nn.Linear(4, 2), nn.functional.cross_entropy, accuracy, Dataset(x, y, x, y))

line = Line()
misnamed = type("Misnamed", (Line,), {})()
misnamed.defaults = TaskDefaults("other", "", False, 1, 1, 0, 1, 0)
builds_nothing = type("BuildsNothing", (Line,), {"build": lambda self, data_dir: None})()
"""


@pytest.fixture
def call(tmp_path):
    """Runs Python code with a distribution `draughtsman` on the path: (standard output, last line of the error)."""

    def run(code, entry="line = draughtsman:line"):
        info = tmp_path / "draughtsman-2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: draughtsman\nVersion: 2\n")
        (info / "entry_points.txt").write_text(f"[p2pnode.tasks]\n{entry}\n")
        (tmp_path / "draughtsman.py").write_text(MODULE)
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path
        )
        return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]

    return run


FIND = "from p2pnode.learning.catalogue import find; find('line')"
BUILD = "from p2pnode.learning.task import build; print(build('line', None).dimension)"


def test_a_plug_in_task_is_built_and_has_its_defaults(call):
    code = f"{BUILD}; from p2pnode.learning.catalogue import find; print(find('line').steps)"
    assert call(code) == ("10\n3", "")


def test_settings_are_checked_against_a_plug_in_as_against_a_built_in_task(call):
    code = "import sys; sys.argv[1:] = {}; from p2pnode.__main__ import main; main()"
    _, error = call(code.format(["testnet", "--task", "lien"]))
    assert "task = 'lien': no such task. Remedy: did you mean 'line'?" in error
    assert "regression, line" in error


def test_no_built_in_task_needs_what_plug_ins_need(call):
    code = (
        "import sys; from p2pnode.learning.catalogue import find; find('digits'); print('draughtsman' in sys.modules)"
    )
    assert call(code) == ("False", "")


@pytest.mark.parametrize(
    ("entry", "code", "wanted"),
    [
        ("digits = draughtsman:line", FIND, "draughtsman 2 offers a task 'digits', which is built in"),
        ("line = draughtsman:TaskDefaults", FIND, "the plug-in 'line' is no task: it needs `defaults`"),
        ("line = draughtsman:misnamed", FIND, "the plug-in 'line' calls its task 'other'"),
        ("line = draughtsman:builds_nothing", BUILD, "the plug-in 'line' built a NoneType, no Task"),
    ],
)
def test_a_mistake_in_a_plug_in_is_told(call, entry, code, wanted):
    _, error = call(code, entry)
    assert error.startswith("p2pnode.errors.ConfigError: p2pnode.tasks: ")
    assert wanted in error
    assert "Remedy: " in error
