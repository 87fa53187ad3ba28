"""Which libraries may be seen from where; the floors themselves are in `.importlinter`."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each library is one module's business, so that what it can do to us stays in one place.
ALLOWED = {
    "aiohttp": (
        "p2pnode/net/",
        "p2pnode/admin.py",
        "p2pnode/netpage.py",
        "p2pnode/observe/named.py",
        "p2pnode/observe/page.py",
        "p2pnode/testnet.py",
    ),
    "asyncio": (
        "p2pnode/net/",
        "p2pnode/admin.py",
        "p2pnode/checkers.py",
        "p2pnode/driver.py",
        "p2pnode/fitting.py",
        "p2pnode/perturbed.py",
        "p2pnode/process.py",
        "p2pnode/testnet.py",
        "p2pnode/soak.py",
        "p2pnode/cli/testnet.py",
        "p2pnode/bench/",
        "p2pnode/calibration.py",
        "p2pnode/experiment/real.py",
    ),
    "msgpack": ("p2pnode/codec.py",),
    "nacl": ("p2pnode/identity.py",),
    "cryptography": ("p2pnode/identity.py",),
    "torch": (
        "p2pnode/aggregation/",
        "p2pnode/bench/",
        "p2pnode/calibration.py",
        "p2pnode/learning/",
        "p2pnode/byzantine/vectors.py",
        "p2pnode/byzantine/search.py",
        "p2pnode/byzantine/schemes.py",
        "p2pnode/byzantine/behaviour.py",
        "p2pnode/driver.py",
        "p2pnode/fitting.py",
        "p2pnode/product.py",
        "p2pnode/experiment/engine.py",
        "p2pnode/simulation/",
        "p2pnode/spawner.py",
    ),
    "llvmlite": ("p2pnode/aggregation/",),
    "pickle": (),
    "marshal": (),
    "shelve": (),
}


def sources(*packages):
    return [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_is_seen_only_where_it_belongs(library):
    seen = {str(file.relative_to(ROOT)) for file in sources("p2pnode", "protocols") if library in set(imported(file))}
    assert [name for name in seen if not name.startswith(ALLOWED[library])] == []


def test_the_conversation_needs_the_standard_library_alone():
    names = {name for file in sources("protocols") for name in imported(file)} - {"protocols"}
    assert names <= sys.stdlib_module_names
    assert names.isdisjoint({"asyncio", "io", "logging", "os", "random", "secrets", "socket", "threading", "time"})


def test_nothing_unpickles_what_torch_reads():
    """`torch.load` can run code; checkpoints are safetensors."""
    assert [str(file) for file in sources("p2pnode") if "torch.load" in file.read_text()] == []


def test_every_test_file_mirrors_a_module_or_a_package():
    folders = {"tests/protocols": "protocols", "tests/p2pnode": "p2pnode"}
    mirrored = {
        test: (ROOT / package / test.relative_to(ROOT / folder)).with_name(test.stem.removeprefix("test_"))
        for folder, package in folders.items()
        for test in (ROOT / folder).rglob("test_*.py")
    }
    assert [str(test) for test, of in mirrored.items() if not of.with_suffix(".py").exists() and not of.is_dir()] == []
