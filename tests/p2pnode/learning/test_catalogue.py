"""The catalogue: complete, in bounds, and readable without torch."""

import subprocess
import sys

import pytest

from p2pnode.learning.catalogue import TASKS


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
