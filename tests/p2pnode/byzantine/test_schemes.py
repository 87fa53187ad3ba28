"""Attacks by name: what is asked for in one string, what is said then, and plug-ins."""

import math
import subprocess
import sys

import pytest
import torch

from p2pnode.byzantine import (
    ALIASES,
    ATTACKS,
    ON_THE_PROTOCOL,
    PARAMETERS,
    PLUGINS,
    Attack,
    check_attacks,
    known_attacks,
    parse,
)
from p2pnode.byzantine.schemes import VECTOR_ATTACKS, scheme_of
from p2pnode.byzantine.vectors import Situation, paper_z
from p2pnode.errors import ConfigError
from p2pnode.plugins import discover
from protocols.header import Slot
from tests.own_code import modules_as_before  # noqa: F401  a fixture

HONEST = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
MEAN = torch.tensor([2.0, 2.0])


def situation(honest=HONEST, rule="trimmed-mean", **known):
    known = {"own": honest[0], "generator": torch.Generator().manual_seed(0)} | known
    n = len(honest) + 2
    return Situation(honest, tuple(range(len(honest))), Slot(4), n, 1, 1, rule, **known)


def said(attack, honest=HONEST, **known):
    return scheme_of(parse(attack)).lie(situation(honest, **known))


# Names and parameters.


@pytest.mark.parametrize(
    ("text", "attack"),
    [
        ("alie", Attack("alie", 1.5)),
        ("ALIE = 0.3", Attack("alie", 0.3)),
        ("a_little is enough=Paper", Attack("alie", "paper")),
        ("empire=search", Attack("ipm", "search")),
        ("fall-of-empires", Attack("ipm", 0.1)),
        ("inner_product=0", Attack("ipm", 0.0)),
        ("SignFlipping", None),
        ("sign_flip", Attack("sign-flip")),
        ("gaussian=1e-3", Attack("random", 1e-3)),
        ("stale=2", Attack("stale", 2.0)),
        ("mimic", Attack("mimic", 100)),
        ("huge", Attack("huge", 1e30)),
        ("selective silence", Attack("selective")),
        ("strongest = alie=2 + sign-flip", Attack("strongest", among=(Attack("alie", 2.0), Attack("sign-flip")))),
    ],
)
def test_an_attack_is_asked_for_in_one_string(text, attack):
    if attack is None:
        with pytest.raises(ConfigError, match="did you mean 'sign-flipping'"):
            parse(text)
    else:
        assert parse(text) == attack


def test_the_strongest_chooses_among_searched_lies_unless_told():
    assert [(one.name, one.parameter) for one in parse("strongest").among] == [
        ("alie", "search"),
        ("ipm", "search"),
        ("sign-flip", None),
        ("anti-elimination", None),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ali", ["attack = 'ali'", "did you mean 'alie'?", "choose from alie, ipm"]),
        ("", ["attack = ''", "choose from alie"]),
        ("alie=", ["'' is no parameter of alie", "Remedy: choose a number from 0 (z", "1.5 if left out", "or search"]),
        ("alie=-1", ["'-1' is no parameter"]),
        ("alie=nan", ["'nan' is no parameter"]),
        ("huge=inf", ["'inf' is no parameter"]),
        ("ipm=paper", ["'paper' is no parameter of ipm", "or search"]),
        ("stale=1.5", ["no parameter of stale", "a whole number from 1"]),
        ("mimic=0", ["a whole number from 1"]),
        ("silent=1", ["silent takes no parameter", "Remedy: write silent alone"]),
        ("strongest=alie+dissensus", ["does not choose from dissensus", "Remedy: join some of alie, ipm"]),
        ("strongest=strongest", ["does not choose from strongest"]),
        ("strongest=", ["attack = ''"]),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(text, told):
    with pytest.raises(ConfigError) as refusal:
        check_attacks(["alie", text])
    assert all(part in str(refusal.value) for part in [*told, "Remedy: "])


def test_every_name_is_of_one_kind():
    assert set(ATTACKS) == VECTOR_ATTACKS | ON_THE_PROTOCOL | {"label-flip"}
    assert not VECTOR_ATTACKS & ON_THE_PROTOCOL
    assert set(ALIASES.values()) | set(PARAMETERS) <= set(ATTACKS)
    assert not set(ALIASES) & set(ATTACKS)
    assert [parse(alias).name for alias in ALIASES] == list(ALIASES.values())
    assert [parse(name).name for name in ATTACKS] == list(ATTACKS)


def test_names_are_checked_without_torch():
    check = "import sys, p2pnode.byzantine as b; b.check_attacks(['alie=search', 'strongest'])"
    code = f"{check}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


# What is said.


@pytest.mark.parametrize("name", sorted(VECTOR_ATTACKS))
def test_every_attack_keeps_dtype_and_repeats_under_one_seed_and_leaves_the_honest_as_they_are(name):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        honest = torch.randn(9, 5, dtype=dtype).T
        before = honest.clone()
        lie = said(name, honest)
        assert (lie.shape, lie.dtype) == ((9 + (name == "wrong-length"),), dtype)
        assert torch.equal(said(name, honest).nan_to_num(), lie.nan_to_num())
        lie.zero_()
        assert torch.equal(honest, before)


@pytest.mark.parametrize(
    ("attack", "lie"),
    [
        ("alie", MEAN - 1.5 * torch.tensor([1.0, 2.0])),
        ("alie=2", MEAN - 2 * torch.tensor([1.0, 2.0])),
        ("alie=paper", MEAN - paper_z(4, 1) * torch.tensor([1.0, 2.0])),
        ("ipm", -0.1 * MEAN),
        ("ipm=10", -10 * MEAN),
        ("sign-flip", -MEAN),
        ("mimic", HONEST[0]),
        ("zero", torch.zeros(2)),
        ("huge=7", torch.full((2,), 7.0)),
        ("inf", torch.full((2,), torch.inf)),
        ("dissensus", MEAN),
        ("stale", HONEST[0]),
        ("wrong-length", torch.tensor([1.0, 0.0, 1.0])),
    ],
)
def test_the_parameter_reaches_the_lie(attack, lie):
    assert said(attack).tolist() == pytest.approx(lie.tolist())


def test_random_has_the_deviation_asked_for():
    assert said("random=0.5", torch.zeros(1, 9000)).std().item() == pytest.approx(0.5, rel=0.1)


def test_dissensus_is_for_each_and_of_a_target_and_only_ones_own_vector_is_waited_for():
    # Three honest members of four, of which two were seen: 3/1 of what leads to their mean, half as much again.
    assert said("dissensus", target=0).tolist() == pytest.approx((HONEST[0] - 4.5 * (MEAN - HONEST[0])).tolist())
    assert said("dissensus=0", target=1).tolist() == HONEST[1].tolist()
    schemes = {name: scheme_of(parse(name)) for name in VECTOR_ATTACKS}
    assert {name for name, scheme in schemes.items() if scheme.to_each} == {"dissensus"}
    assert {name for name, scheme in schemes.items() if scheme.wants_own} == {"stale", "wrong-length"}


@pytest.mark.parametrize("rule", ["trimmed-mean", "nearest-neighbour"])
def test_the_strongest_is_one_of_those_named(rule):
    honest = torch.randn(5, 20, generator=torch.Generator().manual_seed(1))
    candidates = [said(name, honest, rule=rule) for name in ("zero", "alie", "huge")]
    assert any(torch.equal(said("strongest=zero+alie+huge", honest, rule=rule), lie) for lie in candidates)
    assert torch.equal(said("strongest=zero", honest, rule=rule), candidates[0])


def test_each_liar_remembers_for_itself():
    one, other = (scheme_of(parse("stale=1")) for _ in range(2))
    first, second = situation(), situation(own=HONEST[1])
    assert one.lie(first).tolist() == one.lie(second).tolist() == [1, 0]
    assert other.lie(second).tolist() == [3, 4]


def test_attacks_that_are_not_about_vectors_have_no_scheme():
    assert [scheme_of(parse(name)) for name in sorted(ON_THE_PROTOCOL | {"label-flip"})] == [None] * 8


# Plug-ins.


@pytest.fixture
def jester(tmp_path, monkeypatch):
    """A distribution with attacks, good and bad."""
    info = tmp_path / "jester-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jester\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{PLUGINS}]\ntwice = jester_attacks:twice\nshort = jester_attacks:short\nword = jester_attacks:word\n"
        "number = jester_attacks:number\ngone = jester_gone:gone\nalie = jester_attacks:twice\n"
    )
    (tmp_path / "jester_attacks.py").write_text(
        "def twice(situation): return 2 * situation.honest.mean(dim=0)\n"
        "def short(situation): return situation.honest[0, :1]\n"
        "def word(situation): return 'boo'\n"
        "number = 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    discover.cache_clear()
    yield
    discover.cache_clear()


@pytest.mark.usefixtures("jester")
def test_a_plug_in_says_what_it_likes_and_takes_no_name_that_is_taken():
    assert parse(" twice ") == Attack("twice")
    assert said("twice").tolist() == [4, 4]
    assert said("alie").tolist() == pytest.approx([0.5, -1.0])
    assert known_attacks()["twice"] == "a plug-in of jester 1.0"
    assert list(known_attacks())[-1] == "replay"
    with pytest.raises(ConfigError, match=r"did you mean 'twice'\?.*; twice, a plug-in of jester 1.0"):
        parse("twic")
    with pytest.raises(ConfigError, match="twice takes no parameter"):
        parse("twice=2")


@pytest.mark.usefixtures("jester")
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("gone", "does not load.*No module named 'jester_gone'"),
        ("number", "no callable from a Situation"),
        ("short", r"said torch.float32, \(1,\), not torch.float32, \(2,\)"),
        ("word", "said str"),
    ],
)
def test_a_broken_plug_in_is_reported_only_when_it_is_used(name, cause):
    check_attacks([name, "alie"])
    assert math.isfinite(said("alie").sum())
    with pytest.raises(ConfigError, match=rf"{cause}.*Remedy: mend or uninstall jester 1.0"):
        said(name)


# One's own code.

OWN = """
def twice(situation): return 2 * situation.honest.mean(dim=0)
def short(situation): return situation.honest[0, :1]
number = 7
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "Attacks_of=mine.py").write_text(OWN)
    return f"{tmp_path}/Attacks_of=mine.py"


@pytest.mark.usefixtures("modules_as_before")
def test_an_attack_of_ones_own_is_named_by_its_file_and_said_as_it_is(mine):
    check_attacks([f" {mine}:twice", "alie"])
    assert parse(f" {mine}:twice ") == Attack(f"{mine}:twice")
    assert said(f"{mine}:twice").tolist() == [4, 4]


@pytest.mark.usefixtures("modules_as_before")
def test_nothing_is_run_before_it_is_used(tmp_path):
    (tmp_path / "bomb.py").write_text("1 / 0\n")
    assert parse(f"{tmp_path}/bomb.py:x") == Attack(f"{tmp_path}/bomb.py:x")
    with pytest.raises(ConfigError, match=r"attack = .*bomb.py does not run: ZeroDivisionError.* Remedy: "):
        check_attacks([f"{tmp_path}/bomb.py:x"])


@pytest.mark.usefixtures("modules_as_before")
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("number", "it is no function but 7. Remedy: name a function of a Situation"),
        ("nobody", "there is no nobody in .*Remedy: "),
        ("twice=2", "names no code. Remedy: "),
    ],
)
def test_what_is_no_attack_of_ones_own_is_refused_at_once(mine, name, cause):
    with pytest.raises(ConfigError, match=f"attack = .*{cause}"):
        check_attacks([f"{mine}:{name}"])


@pytest.mark.usefixtures("modules_as_before")
def test_what_ones_own_attack_says_is_held_to_the_shape_of_a_lie(mine):
    with pytest.raises(ConfigError, match=r"it said torch.float32, \(1,\), not torch.float32, \(2,\). Remedy: mend it"):
        said(f"{mine}:short")
