"""What a node remembers of its steps: true, as far as a sample tells, bounded, and cheap."""

import json
from itertools import pairwise

import numpy as np
import pytest

from p2pnode.aggregation import RULES, mix
from p2pnode.learning.wire import narrow
from p2pnode.observe import history as history_module
from p2pnode.observe.history import CELLS_MAX, RECENT_MAX, RECENT_MIN, REVISED, SAMPLED_MAX, History, Thinned
from p2pnode.recipe import choose
from protocols.committee import Committee
from protocols.effects import Gathered
from protocols.header import BFLOAT16, FLOAT32, Slot

NAMES = [f"node{i}" for i in range(7)]


def a_history(recipe="trimmed", names=NAMES, length=300, **more):
    return History(names, 0, choose(recipe, Committee(len(names), 1)), 1, length, clock=lambda: 1e9, seed=1, **more)


def gathered(peers, step=0, exchange=0, sub_round=0):
    return Gathered(Slot(step, exchange, sub_round), tuple((peer, bytes([peer]) * 32) for peer in peers))


def take(history, step, rows, peers=None, *, here=(), kept=None, exchange=0, loss=0.5, dtype=FLOAT32):
    """A step in which these vectors are mixed by the trimmed mean; the mixture."""
    peers = list(range(len(rows))) if peers is None else peers
    mixture = mix("trimmed-mean", rows, f=1).vector.numpy()
    announced = [narrow(row.numpy(), dtype) for row in rows]
    history.mixed(
        gathered(peers, step, exchange), announced, mixture, kept if kept is not None else range(len(rows)), loss
    )
    history.stepped(step, {"mix": float(step + 1)}, lambda slot: here)
    return mixture


def vectors(count, length=300, seed=0):
    import torch

    return torch.randn(count, length, generator=torch.Generator().manual_seed(seed))


def view(history, step=-1, exchange=0):
    return history.told()["steps"][step]["exchanges"][exchange]


# What was seen.


def test_distances_are_those_of_the_members_vectors_from_the_mixture():
    history, rows = a_history(), vectors(6)
    mixture = take(history, 0, rows, [0, 1, 2, 4, 5, 6])
    told = view(history)
    true = np.linalg.norm(rows.numpy() - mixture, axis=1)
    assert told["distance"][3] is None
    assert told["distance"][:3] + told["distance"][4:] == pytest.approx(true, rel=1e-3)
    assert told["scale"] == pytest.approx(np.median(true), rel=1e-3)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_of_long_vectors_a_sample_estimates_the_distance(dtype):
    length = 20 * SAMPLED_MAX
    history, rows = a_history(length=length), vectors(5, length)
    rows[4] *= 10
    mixture = take(history, 0, rows, dtype=dtype)
    assert history.told()["sampled"] == SAMPLED_MAX
    assert view(history)["distance"][:5] == pytest.approx(np.linalg.norm(rows.numpy() - mixture, axis=1), rel=0.05)


def test_nobody_can_guess_where_is_looked():
    drawn = [History(NAMES, 0, choose("trimmed", Committee(7, 1)), 1, 10**6)._sampled.tobytes() for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_of_a_liar_at_the_edge_more_is_left_out_than_of_others():
    history, rows = a_history(), vectors(7)
    rows[6] = rows[:6].mean(dim=0) - 1.5 * rows[:6].std(dim=0)
    take(history, 0, rows)
    told = view(history)
    assert told["left_out"][6] > 1.5 * max(told["left_out"][:6])
    assert told["usual"] == pytest.approx(2 / 7, rel=1e-3)  # of each coordinate two of seven


def test_rules_of_whole_vectors_keep_or_drop_them():
    history = a_history("monna", length=30)
    assert history.told()["exchanges"][0]["left_out"] == "vectors"
    take(history, 0, vectors(6, 30), kept=(0, 1, 2, 4, 5))
    assert view(history)["left_out"] == [0, 0, 0, 1, 0, 0, None]


def test_who_came_after_the_mixture_is_late_and_who_did_not_come_absent_until_it_does():
    history, rows = a_history(), vectors(5)
    take(history, 0, rows, [0, 1, 2, 3, 4], here=(0, 1, 2, 3, 4, 5))
    assert (view(history)["late"], view(history)["absent"]) == ([5], [6])
    for step in range(1, REVISED):
        take(history, step, rows, here=(0, 5, 6) if step == REVISED - 1 else ())
    assert (view(history, 0)["late"], view(history, 0)["absent"]) == ([5, 6], [])
    take(history, REVISED, rows, here=())
    take(history, REVISED + 1, rows, here=(0, 1, 2, 3, 4, 5, 6))
    assert view(history, 0)["late"] == [5, 6]
    assert view(history, 1)["absent"] == []  # it was among the last ones when all was here


def test_each_exchange_has_a_view_of_its_own_and_later_sub_rounds_have_none():
    history, rows = a_history("jungle-rb"), vectors(7)
    history.mixed(gathered(range(7), exchange=0), rows.numpy(), rows.mean(dim=0).numpy(), range(7), 1.0)
    first = history.told()
    history.mixed(gathered(range(3), sub_round=1), rows[:3].numpy(), rows[0].numpy(), range(3), 1.0)
    history.mixed(gathered(range(6), exchange=1), rows[:6].numpy(), rows.mean(dim=0).numpy(), range(6), 1.0)
    history.stepped(0, {}, lambda slot: ())
    assert first["steps"] == []  # a step that is not taken is not told
    gradient, model = history.told()["steps"][0]["exchanges"]
    assert None not in gradient["distance"]
    assert model["distance"].index(None) == 6


def test_a_step_without_one_s_own_vector_is_mixed_by_the_median_and_so_is_what_is_left_out():
    history, rows = a_history("monna"), vectors(6)
    history.mixed(gathered(range(1, 7)), rows.numpy(), rows.median(dim=0).values.numpy(), range(6), None)
    history.stepped(0, {}, lambda slot: ())
    assert 0 < view(history)["left_out"][1] < 1


def test_seconds_are_of_the_step_alone_and_what_json_has_no_word_for_is_none():
    history = a_history()
    take(history, 0, vectors(5), loss=float("nan"))
    take(history, 1, vectors(5), loss=None)
    history.measured(2, float("inf"), 0.25)
    told = history.told()
    assert [step["seconds"]["mix"] for step in told["steps"]] == [1, 1]
    assert [step["loss"] for step in told["steps"]] == [None, None]
    assert told["measured"] == [{"step": 2, "time": 1e9, "loss": None, "accuracy": 0.25}]
    json.dumps(told, allow_nan=False)


def test_huge_lies_are_told():
    history, rows = a_history(), vectors(6)
    rows[5] = 1e38
    take(history, 0, rows)
    assert view(history)["distance"][5] == pytest.approx(1e38 * 300**0.5, rel=1e-2)


def test_what_is_older_than_was_asked_for_is_not_told():
    history = a_history()
    for step in range(6):
        take(history, step, vectors(5))
        history.measured(step, 0.1, 0.9)
    assert [step["step"] for step in history.told(4)["steps"]] == [4, 5]
    assert [one["step"] for one in history.told(4)["measured"]] == [4, 5]


# Bounds.


def test_of_steps_long_gone_ever_fewer_are_kept_and_the_latest_whole():
    thinned = Thinned(8)
    for item in range(1000):
        thinned.add(item)
        assert len(thinned) <= 16
        assert list(thinned)[-min(8, item + 1) :] == list(range(max(0, item - 7), item + 1))
    older = list(thinned)[:-8]
    assert older[0] == 0
    assert {later - earlier for earlier, later in pairwise(older)} == {thinned.stride}
    assert thinned.latest(3) == [997, 998, 999]


@pytest.mark.parametrize(("members", "recipe"), [(5, "trimmed"), (128, "trimmed"), (1024, "jungle-rb")])
def test_memory_is_bounded_whatever_the_members_and_steps(members, recipe):
    names = [f"node{i}" for i in range(members)]
    history = a_history(recipe, names, length=4)
    exchanges = len(history.told()["exchanges"])
    for step in range(3 * RECENT_MAX):
        history.stepped(step, {}, lambda slot: ())
    kept = len(list(history._steps))
    assert kept <= 2 * RECENT_MAX
    assert kept * exchanges * members <= max(CELLS_MAX, 2 * RECENT_MIN * exchanges * members)


def test_only_the_sample_is_looked_at(monkeypatch):
    """What it costs does not grow with the vectors: of each, no more numbers are read."""
    monkeypatch.setattr(history_module, "SAMPLED_MAX", 10)
    history = a_history(length=1000)
    read = []

    class Watched(np.ndarray):
        def __getitem__(self, index):
            read.append(len(index))
            return np.asarray(super().__getitem__(index))

    rows = [row.view(Watched) for row in vectors(5, 1000).numpy()]
    history.mixed(gathered(range(5)), rows, rows[0], range(5), None)
    assert read == [10] * 6


class Time:
    """Looks that take so many seconds."""

    def __init__(self, look_s):
        self.now, self.looks = 1000.0, []
        self._look_s = look_s

    def watch(self, history):
        look = history._look

        def looking(*given):
            self.looks.append(self.now)
            self.now += self._look_s
            return look(*given)

        history._look = looking


@pytest.mark.parametrize(("step_s", "every"), [(1.0, 1), (0.11, 1), (0.06, 2), (0.0105, 10)])
@pytest.mark.parametrize("recipe", ["trimmed", "jungle-rb"])
def test_looking_takes_no_more_than_its_share_however_short_steps_are(recipe, step_s, every):
    """And of all exchanges of a step or of none: else it would be the same one each time."""
    took = Time(0.0005 if recipe == "jungle-rb" else 0.001)
    limits = {"time_share": 0.01, "lap": lambda: took.now}
    history, rows = a_history(recipe, length=20, **limits), vectors(7, 20)
    took.watch(history)
    exchanges = len(history.told()["exchanges"])
    for step in range(100):
        for exchange in range(exchanges):
            history.mixed(gathered(range(7), step, exchange), rows.numpy(), rows[0].numpy(), range(7), 0.5)
        history.stepped(step, {}, lambda slot: ())
        took.now += step_s
    looked = [[view["looked"] for view in step["exchanges"]] for step in history.told()["steps"]]
    assert looked == [[step % every == 0] * exchanges for step in range(100)]
    assert len(took.looks) == exchanges * len(range(0, 100, every))
    took.now += 1e6  # nobody is owed the looks of a time in which there was nothing to look at
    for step in range(100, 103):
        history.mixed(gathered(range(7), step), rows.numpy(), rows[0].numpy(), range(7), 0.5)
        history.stepped(step, {}, lambda slot: ())
        took.now += 0.01
    assert [step["exchanges"][0]["looked"] for step in history.told(100)["steps"]] == [True, False, False]


@pytest.mark.parametrize(("step_s", "every"), [(0.11, 1), (0.3, 1), (0.06, 100)])
def test_all_that_is_done_of_a_mixture_counts_and_not_the_look_alone(step_s, every):
    """Each takes 1 ms though looks take nothing: where that is more than a share of a step, there is no second look."""
    took = Time(0.0)

    class Slow:
        def __init__(self, step):
            self.slot = Slot(step)

        @property
        def values(self):
            took.now += 0.001
            return gathered(range(7)).values

    history, rows = a_history(length=20, time_share=0.01, lap=lambda: took.now), vectors(7, 20)
    took.watch(history)
    for step in range(100):
        history.mixed(Slow(step), rows.numpy(), rows[0].numpy(), range(7), 0.5)
        took.now += step_s
    assert len(took.looks) == 100 // every


def test_a_process_that_was_stopped_in_a_look_looks_again_in_seconds():
    took = Time(3600.0)
    history, rows = a_history(length=20, time_share=0.01, lap=lambda: took.now), vectors(7, 20)
    took.watch(history)
    for step in range(3):
        history.mixed(gathered(range(7), step), rows.numpy(), rows[0].numpy(), range(7), 0.5)
        history.stepped(step, {}, lambda slot: ())
        took.now += 100 * history_module.LOOK_MAX_S
    assert len(took.looks) == 3


def test_of_a_step_that_was_not_looked_at_it_is_told_who_came():
    history, rows = a_history(time_share=0.0), vectors(5)
    take(history, 0, rows, [0, 1, 2, 3, 4], here=(0, 1, 2, 3, 4, 5))
    assert history.told()["time_share"] == 0
    assert view(history) == {
        "looked": False,
        "distance": [None] * 7,
        "scale": None,
        "left_out": [None] * 7,
        "usual": None,
        "late": [5],
        "absent": [6],
    }


# Each rule.


def averaged(rule, sample, f):
    """Where each number has a part, by trying: the mixture of a coordinate moves with a number that has."""
    import torch

    q, k = sample.shape
    before = mix(rule, torch.from_numpy(sample), f=f).vector.numpy()
    has = np.zeros((q, k), bool)
    for row in range(q):
        moved = sample.copy()
        moved[row] += 1e-9
        has[row] = mix(rule, torch.from_numpy(moved), f=f).vector.numpy() != before
    return has


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed-mean", "mean-around-median", "phocas"])
@pytest.mark.parametrize("q", [5, 8])
def test_a_coordinate_is_left_out_where_the_mixture_does_not_move_with_it(rule, q):
    """But for the centre of MeaMed and Phocas, which moves nothing unless other numbers become the nearest."""
    from p2pnode.aggregation import share

    sample = np.random.default_rng(3).standard_normal((q, 200))
    assert share.by_coordinate(rule)
    told = share.left_out(rule, sample, 1, range(q))
    assert told == pytest.approx(1 - averaged(rule, sample, 1).mean(axis=1))


def test_equal_numbers_are_left_out_alike():
    from p2pnode.aggregation import share

    assert share.left_out("trimmed-mean", np.ones((5, 3)), 1, range(5)).tolist() == [0] * 5
    assert share.left_out("median", np.array([[0.0], [0], [0], [1], [2]]), 2, range(5)).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("rule", [*RULES, "nnm+trimmed-mean", "bucketing+median"])
def test_every_rule_has_a_share_for_every_vector(rule):
    from p2pnode.aggregation import share

    told = share.left_out(rule, np.random.default_rng(0).standard_normal((11, 5)), 1, [0, 3])
    assert told.shape == (11,)
    assert ((told >= 0) & (told <= 1)).all()
    if not share.by_coordinate(rule):
        assert told.tolist() == [float(row not in (0, 3)) for row in range(11)]
