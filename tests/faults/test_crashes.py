"""Whatever a crash leaves, a node goes on, says nothing else than it said, and lost nothing that it relied on.

The numbers of cases are told so that no sweep shrinks unseen; they change with what the storage writes.
"""

from collections import Counter

import pytest

from tests.faults import sweep
from tests.faults.life import World


@pytest.fixture
def world(monkeypatch, tmp_path):
    return World(monkeypatch, tmp_path / "home")


def test_a_life_is_cut_between_all_that_it_does_to_the_disk(world):
    done = Counter(sweep.operations(world))
    assert done == {
        "open": 14,
        "write": 52,
        "fsync": 34,
        "rename": 18,
        "fsync folder": 18,
        "mkdir": 1,
        "end": 1,
    }


def test_whatever_a_power_cut_leaves_is_gone_on_from(world):
    assert sweep.power_cuts(world) == {"lost": 87, "kept": 88, "torn": 2905, "zeros": 53}


def test_what_a_killed_process_leaves_is_made_durable_before_it_is_relied_on(world):
    assert sweep.kills(world) == 331


def test_a_recovery_that_is_cut_short_is_begun_again(world):
    assert sweep.interrupted_recoveries(world) == 82


def test_a_disk_that_refuses_halts_the_node_with_a_remedy_and_nothing_is_contradicted(world):
    assert sweep.refusals(world) == 244


def test_a_damaged_or_lost_record_of_what_was_signed_refuses_and_other_damage_contradicts_nothing(world):
    assert sweep.damages(world) == {"journal": 1557, "outbox": 418, "checkpoint": 70}
