"""What the threat model promises is tested: every test that it names exists."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_test_that_the_threat_model_names_exists():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (TESTS.parent / "docs/threat-model.md").read_text())
    assert len(named) > 20
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (TESTS / file).read_text()]
    assert missing == []
