"""The charter: every field but an address names the network, and every mistake in it is a ConfigError that helps."""

import base64
import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode.errors import ConfigError
from p2pnode.genesis import Choice, Genesis
from p2pnode.identity import Identity, certificate_der
from p2pnode.recipe import BROADCASTS, RECIPES
from p2pnode.settings import check
from protocols.committee import MEMBERS_MAX

IDENTITIES = [Identity.generate() for _ in range(6)]


def member(i, **changes):
    identity = IDENTITIES[i]
    return {
        "name": f"n{i}",
        "public_key": identity.public_key.hex(),
        "certificate": identity.certificate(f"n{i}"),
        "address": f"10.0.0.{i}:7000",
        **changes,
    }


CHARTER = {
    "version": 1,
    "seed": 7,
    "f": 1,
    "vectors": "tls",
    "recipe": {
        "name": "trimmed",
        "broadcast": None,
        "rule": None,
        "sub_rounds": None,
        "gather": None,
        "redundancy": None,
        "local_steps": None,
        "placement": None,
        "wire": None,
        "staleness": None,
    },
    "training": {
        "task": "digits",
        "alpha": 0.3,
        "steps": 100,
        "local_batch": 25,
        "momentum": 0.9,
        "lr": 0.1,
        "lr_decay_every": 0,
        "clip": None,
        "model": None,
    },
    "members": [member(i) for i in range(5)],
}


def changed(path, value):
    """The charter with another value at "training.lr" or "members.0.name"."""
    charter = json.loads(json.dumps(CHARTER))
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = charter
    for part in way:
        place = place[part]
    place[last] = value
    return charter


def network(charter):
    return check(Genesis, charter, "test").network


GENESIS = check(Genesis, CHARTER, "test")


def test_a_charter_says_who_how_many_may_lie_and_how_they_mix():
    assert (GENESIS.committee.n, GENESIS.committee.f) == (5, 1)
    assert GENESIS.plan.name == "trimmed"
    assert GENESIS.certificates_der == tuple(certificate_der(m["certificate"]) for m in CHARTER["members"])
    assert len(GENESIS.network) == 32


def test_a_charter_comes_back_from_its_file(tmp_path):
    path = tmp_path / "genesis.json"
    GENESIS.save(path)
    assert Genesis.load(path) == GENESIS
    assert Genesis.load(path).network == GENESIS.network


def test_the_network_is_the_same_in_another_process_under_any_hash_seed(tmp_path):
    GENESIS.save(tmp_path / "genesis.json")
    code = (
        "import sys, pathlib; from p2pnode.genesis import Genesis;"
        "print(Genesis.load(pathlib.Path(sys.argv[1])).network.hex())"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "genesis.json"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip() == GENESIS.network.hex()


def test_a_member_may_move_and_a_file_may_be_laid_out_otherwise():
    assert network(changed("members.2.address", "far.example:1")) == GENESIS.network
    assert network(dict(reversed(CHARTER.items()))) == GENESIS.network
    assert network({**CHARTER, "training": {**CHARTER["training"], "lr": 1}}) == network(changed("training.lr", 1.0))
    without_defaults = {key: value for key, value in CHARTER.items() if key not in ("version", "recipe")}
    assert network(without_defaults) == GENESIS.network


OTHERWISE = {
    "seed": 8,
    "f": 0,
    "vectors": "plain",
    "recipe.name": "monna",
    "recipe.broadcast": "plain",
    "recipe.rule": "median",
    "recipe.sub_rounds": 3,
    "recipe.gather": "quorum",
    "recipe.redundancy": 1,
    "recipe.local_steps": 2,
    "recipe.placement": "worker",
    "recipe.wire": "float32",
    "recipe.staleness": 0,
    "training.task": "mnist",
    "training.alpha": None,
    "training.steps": 101,
    "training.local_batch": 24,
    "training.momentum": math.nextafter(0.9, 1),
    "training.lr": math.nextafter(0.1, 1),
    "training.lr_decay_every": 1,
    "training.clip": 2.0,
    "training.model": {"parameters": 4810, "layout": "0" * 64, "start": "1" * 64},
    "members.0.name": "m0",
    "members.0.certificate": IDENTITIES[0].certificate("n0"),  # of the same key, with another serial number
    "members.4": member(5),
}


@pytest.mark.parametrize("path", OTHERWISE)
def test_whatever_else_is_changed_names_another_network(path):
    assert network(changed(path, OTHERWISE[path])) != GENESIS.network


def test_every_field_is_among_those_that_were_changed():
    leaves = {
        f"{key}.{inner}" if isinstance(value, dict) else key
        for key, value in CHARTER.items()
        for inner in (value if isinstance(value, dict) else [key])
    }
    assert leaves - OTHERWISE.keys() == {"version", "members"}
    assert set(Genesis.model_fields) == set(CHARTER)
    assert set(type(GENESIS.training).model_fields) == set(CHARTER["training"])
    assert set(type(GENESIS.recipe).model_fields) == set(CHARTER["recipe"])
    assert set(type(GENESIS.members[0]).model_fields) == set(CHARTER["members"][0])


def test_order_and_number_of_members_name_the_network():
    members = CHARTER["members"]
    networks = {network({**CHARTER, "f": 0, "members": who}) for who in (members, members[::-1], members[:4])}
    assert len(networks) == 3


def test_the_network_is_what_it_was_in_the_first_version():
    """A charter that is deployed must keep its name, or no node of the next release can join."""
    pem = (
        "-----BEGIN CERTIFICATE-----\n"
        "MIHgMIGToAMCAQICAQEwBQYDK2VwMA0xCzAJBgNVBAMMAmEwMCAXDTIwMDEwMTAw\n"
        "-----END CERTIFICATE-----\n"
    )
    fixed = GENESIS.model_copy(
        update={"members": (GENESIS.members[0].model_copy(update={"public_key": "0" * 64, "certificate": pem}),)}
    )
    assert fixed.network.hex() == "75fb4b62913498335f9cef9ff70788d7f52ddd648b20e8f14029ee18ef6d79cb"
    assert fixed.model_copy(update={"vectors": "plain"}).network != fixed.network


def refusal(tmp_path, charter):
    path = tmp_path / "genesis.json"
    path.write_text(charter if isinstance(charter, str) else json.dumps(charter))
    with pytest.raises(ConfigError) as caught:
        Genesis.load(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("seed", -1, ["seed = '-1'", "greater than or equal to 0", "Remedy: choose an integer from 0"]),
        ("f", -1, ["f = '-1'", "greater than or equal to 0", "Remedy: choose how many members may lie"]),
        ("f", True, ["f = 'True'", "valid integer"]),
        ("f", 1.0, ["f = '1.0'", "valid integer"]),
        ("f", 2, ["f = 2", "n=5 tolerates f=1", "needs n ≥ 9", "Remedy: use n ≥ 9 nodes, or choose f=1"]),
        ("f", 5, ["f = 5", "n=5", "Remedy: choose f < 5"]),
        ("f", MEMBERS_MAX, ["f = '1024'", "less than 1024", "Remedy: "]),
        ("f", 10**4000, ["f = '1000", "less than 1024", "Remedy: "]),
        ("version", 2, ["version = '2'", "Remedy: make the genesis with this version of p2pnode"]),
        ("training.lr", 0, ["training.lr = '0'", "greater than 0", "Remedy: choose a positive step size"]),
        ("training.lr", float("nan"), ["training.lr = 'nan'", "finite"]),
        ("training.lr", float("inf"), ["training.lr = 'inf'", "finite"]),
        ("training.momentum", 1, ["training.momentum = '1'", "less than 1", "Remedy: choose 0 ≤ momentum < 1"]),
        ("training.steps", "100", ["training.steps = '100'", "valid integer"]),
        ("training.step", 1, ["training.step = '1'", "Remedy: remove it, or mend its spelling"]),
        ("members.1.port", 1, ["members.1.port = '1'", "Remedy: remove it, or mend its spelling"]),
        ("recipe.name", "trimed", ["recipe = 'trimed'", "did you mean 'trimmed'?"]),
        ("recipe.broadcast", "", ["broadcast = ''", "choose one of plain, signed-echo, reliable"]),
        ("recipe.name", 3, ["recipe.name = '3'", "Remedy: choose one of dsgd, trimmed, monna, jungle-rb"]),
        ("recipe.broadcast", 3, ["recipe.broadcast = '3'", "Remedy: choose one of plain, signed-echo, reliable"]),
        ("recipe.name", "jungle-mda", ["minimum-diameter over plain needs n ≥ 6f+1: n=5", "f=1 needs n ≥ 7"]),
        ("recipe.placement", "server", ["recipe.placement = 'server'", "Remedy: choose worker or update"]),
        ("recipe.wire", "float8", ["recipe.wire = 'float8'", "Remedy: choose one of float32, bfloat16, float16"]),
        ("recipe.staleness", 2, ["recipe.staleness = '2'", "Remedy: choose 0 or 1"]),
        ("recipe.placement", "update", ["trimmed agrees on no direction", "exchanges gradients"]),
        ("recipe.gather", "all", ["who waits for 5 of 5 members waits for ever if f of them are silent"]),
        ("recipe.redundancy", 0, ["who waits for 5 of 5 members waits for ever"]),
        ("training.clip", 0, ["training.clip = '0'", "Remedy: choose the largest norm"]),
        ("recipe.sub_rounds", 65, ["recipe.sub_rounds = '65'", "Remedy: choose from 1 to 64"]),
        ("members", [], ["members = '[]'", "Remedy: list from 1 to 1024 members"]),
        ("members.3.name", "n1", ["2 members share the name n1", "Remedy: list", "each with its own name"]),
        ("members.3.address", "10.0.0.1:7000", ["2 members share the address 10.0.0.1:7000", "Remedy: "]),
        ("members.3", member(1, name="other", address="a:1"), ["2 members share the public_key", "Remedy: "]),
        ("members.0.name", "Ann", ["members.0.name = 'Ann'", "Remedy: use lower-case letters"]),
        ("members.0.name", "../x", ["members.0.name = '../x'", "Remedy: use lower-case letters"]),
        ("members.0.address", "h:65536", ["members.0.address = 'h:65536'", "at most 65535", "host:port"]),
        ("members.0.public_key", "0" * 63, ["members.0.public_key = '000", "Remedy: copy the 64 hexadecimal digits"]),
        ("members.0.public_key", "0" * 64, ["members.0.certificate", "another key than public_key", "copy the PEM"]),
        ("members.0.certificate", member(1)["certificate"], ["members.0.certificate", "another key", "copy the PEM"]),
        ("members.0.certificate", "none", ["members.0.certificate = 'none'", "Remedy: copy the PEM text"]),
    ],
)
def test_a_mistake_is_refused_with_key_value_reason_and_remedy(tmp_path, path, value, wanted):
    message = refusal(tmp_path, changed(path, value))
    for part in wanted:
        assert part in message
    assert len(message) < 1000


@pytest.mark.parametrize(("key", "known"), [("name", RECIPES), ("broadcast", BROADCASTS)])
def test_a_choice_says_all_that_can_be_chosen(key, known):
    described = Choice.model_fields[key].description.removeprefix("choose one of ")
    assert described.split(", ") == list(known)


def test_a_missing_key_is_named(tmp_path):
    for key in ("f", "training", "members"):
        message = refusal(tmp_path, {k: v for k, v in CHARTER.items() if k != key})
        assert message.startswith(f"{tmp_path / 'genesis.json'}: {key}: field required. Remedy: ")


def test_a_certificate_of_a_kind_unknown_to_the_library_is_refused(tmp_path):
    body = bytearray(certificate_der(CHARTER["members"][0]["certificate"]))
    ed25519 = bytes.fromhex("2b6570")
    body[body.index(ed25519, body.index(ed25519) + 1) + 2] ^= 1  # of the key; the first is of the signature
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(body).decode()}\n-----END CERTIFICATE-----\n"
    assert "members.0.certificate" in refusal(tmp_path, changed("members.0.certificate", pem))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1" * 5000, "[" * 10**5, '{"a":' * 10**5, "\x00", "{'f': 1}"])
def test_what_is_no_json_object_is_refused_with_a_remedy(tmp_path, text):
    assert "not JSON" in refusal(tmp_path, text) or "not a JSON object" in refusal(tmp_path, text)


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path):
    path = tmp_path / "genesis.json"
    with pytest.raises(ConfigError, match="No such file or directory; make one with `p2pnode init`"):
        Genesis.load(path)
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigError, match="not JSON"):
        Genesis.load(path)
    with pytest.raises(ConfigError, match="Is a directory"):
        Genesis.load(tmp_path)


@pytest.mark.parametrize("key", CHARTER)
def test_nesting_that_json_can_just_hold_is_refused_without_a_crash(tmp_path, key):
    for depth in (*range(880, 1000, 3), 3000):
        text = json.dumps({k: v for k, v in CHARTER.items() if k != key})
        refusal(tmp_path, text[:-1] + f', "{key}": {"[" * depth}{"]" * depth}}}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a1:\ud800é", max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "f", "x"]), inner, max_size=2),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*OTHERWISE, "members", "training", "recipe", "members.1.address", "members.1.public_key"]),
    json_values,
)
def test_hostile_json_is_a_charter_or_a_config_error(tmp_path, path, value):
    file = tmp_path / "genesis.json"
    file.write_text(json.dumps(changed(path, value)))
    try:
        genesis = Genesis.load(file)
    except ConfigError:
        return
    genesis.save(file)
    assert Genesis.load(file).network == genesis.network
