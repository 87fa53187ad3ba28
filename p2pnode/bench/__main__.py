"""`python -m p2pnode.bench`, which `scripts/bench` runs."""

from p2pnode.bench import crypto, flood, link, observe, rounds, rules, scale, silence  # noqa: F401  registers its commands
from p2pnode.bench.app import run

run()
