"""`python -m p2pnode.bench`, which `scripts/bench` runs."""

from p2pnode.bench.rules import run

run()
