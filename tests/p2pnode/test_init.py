"""Founding a network: homes that run as they are, secrets that only their owner reads, and nothing overwritten."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity, certified_key
from p2pnode.init import Place, charter, equip, found, unite
from p2pnode.storage.signer import DurableSigner

VALUES = {"f": 1, "training": {"steps": 3, "local_batch": 5, "momentum": 0.9, "lr": 0.1}}


def places(n=5, **more):
    return [Place(f"n{i}", f"127.0.0.1:{7000 + i}", more) for i in range(n)]


def test_a_network_is_one_genesis_and_a_home_for_each_member(tmp_path):
    genesis = found(tmp_path / "a" / "net", places(data_dir="données", threads=2, evaluate_every=None), VALUES)
    folder = tmp_path / "a" / "net"
    assert {path.name for path in folder.iterdir()} == {"genesis.json", "n0", "n1", "n2", "n3", "n4"}
    assert Genesis.load(folder / "genesis.json") == genesis
    for member in genesis.members:
        home = Home(folder / member.name)
        assert Genesis.load(home.genesis) == genesis
        identity = Identity.load(home.key)
        assert identity.public_key.hex() == member.public_key
        DurableSigner(identity, home.journal).close()  # the record of a key is made with the key
        assert home.certificate.read_text() == member.certificate
        config = NodeConfig.load(home.config)
        assert (config.name, config.listen) == (member.name, member.address)
        assert (config.data_dir, config.threads) == ("données", 2)
        assert config.evaluate_every == NodeConfig(name="a", listen="h:1").evaluate_every  # None leaves the default


def test_homes_and_keys_are_their_owners_alone(tmp_path):
    found(tmp_path, places(), VALUES)
    assert stat.S_IMODE((tmp_path / "n0").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "n0" / "key.pem").stat().st_mode) == 0o600


def test_a_key_the_record_of_it_and_the_home_they_lie_in_are_durable(tmp_path, monkeypatch):
    synced = []

    def fsync(fd, real=os.fsync):
        synced.append(Path(f"/proc/self/fd/{fd}").resolve())
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    found(tmp_path / "net", places(1), {**VALUES, "f": 0})
    home = tmp_path / "net" / "n0"
    assert synced == [home / "key.pem.new", home, home / "signed.journal.new", home, home.parent]


def test_keys_are_fresh_and_their_own():
    one, identities = charter(places(), VALUES)
    other, _ = charter(places(), VALUES)
    assert len({member.public_key for member in (*one.members, *other.members)}) == 10
    assert [certified_key(m.certificate) for m in one.members] == [identity.public_key for identity in identities]
    assert one.network != other.network


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_nothing_is_overwritten_and_nothing_half_made(tmp_path):
    found(tmp_path, places(), VALUES)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path / 'genesis.json'}: exists; choose another folder"):
        found(tmp_path, places(), VALUES)
    (tmp_path / "genesis.json").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=f"{tmp_path / 'n3'}: exists; choose another folder"):
        found(tmp_path, [Place(f"n{i}", f"h:{i}", {}) for i in (7, 8, 9, 10, 3)], VALUES)
    (tmp_path / "moved").rename(tmp_path / "genesis.json")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("who", "values", "wanted"),
    [
        (places(), {**VALUES, "f": 2}, "n=5 tolerates f=1; f=2 needs n ≥ 9"),
        (places(), {**VALUES, "f": 5}, "f = 5: of n=5 members"),
        (places(0), VALUES, "settings: members = '[]'"),
        (places(1025), VALUES, "settings: members = "),
        (places(), {**VALUES, "recipe": {"name": "x"}}, "recipe = 'x'"),
        (places(), {**VALUES, "members": []}, None),
        ([*places(4), *places(1)], VALUES, "2 members share the name n0"),
        (places(5, thread=1), VALUES, "settings of n0: thread = '1': extra inputs are not permitted"),
        (places(5, threads="1"), VALUES, "settings of n0: threads = '1': input should be a valid integer"),
        (places(5, data_dir="\udc80"), VALUES, "settings of n0: data_dir = '\\udc80': 'utf-8' codec can't encode"),
        (places(5, linger_s=float("nan")), VALUES, "settings of n0: linger_s = 'nan'"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_written(tmp_path, who, values, wanted):
    folder = tmp_path / "net"
    if wanted is None:
        assert len(found(folder, who, values).members) == 5
        return
    with pytest.raises(ConfigError) as caught:
        found(folder, who, values)
    assert wanted in str(caught.value)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "net", tmp_path / "file", Path("/proc/net-of-mine")):
        with pytest.raises(ConfigError, match="choose another folder"):
            found(folder, places(), VALUES)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(max_size=8) | st.text('"\\\x7f\x00\n\r\t\u2028\U0001f40d', max_size=8),
    st.floats(min_value=0, max_value=86400),
)
def test_any_text_and_number_comes_back_from_node_toml(tmp_path_factory, text, number):
    folder = tmp_path_factory.mktemp("net")
    found(folder, places(1, data_dir=text, linger_s=number), {**VALUES, "f": 0})
    config = NodeConfig.load(folder / "n0" / "node.toml")
    assert (config.data_dir, config.linger_s) == (text, number)


def cards(folder, names="edcba"):
    for i, name in enumerate(names):
        equip(Home(folder / name), name, f"127.0.0.1:{7000 + i}", {}, f"0.0.0.0:{7000 + i}")
    return [Home(folder / name).card for name in names]


def test_members_that_equip_themselves_unite_in_one_network_whatever_the_order_of_their_cards(tmp_path):
    files = cards(tmp_path)
    genesis = unite(files, VALUES)
    assert [member.name for member in genesis.members] == ["a", "b", "c", "d", "e"]
    assert unite(files[::-1], VALUES) == genesis
    for member in genesis.members:
        home = Home(tmp_path / member.name)
        assert Identity.load(home.key).public_key.hex() == member.public_key
        assert home.certificate.read_text() == member.certificate
        assert NodeConfig.load(home.config).listen == member.address.replace("127.0.0.1", "0.0.0.0")
        assert "PRIVATE" not in home.card.read_text()
        DurableSigner(Identity.load(home.key), home.journal).close()


def test_cards_that_do_not_make_a_network_are_refused(tmp_path):
    files = cards(tmp_path)
    with pytest.raises(ConfigError, match="2 members share the name a"):
        unite([*files, files[-1]], VALUES)
    with pytest.raises(ConfigError, match="n ≥ 4f"):
        unite(files[:4], VALUES)
    files[0].write_text("{}")
    with pytest.raises(ConfigError, match=r"e/card.json: name.*missing|required"):
        unite(files, VALUES)
    with pytest.raises(ConfigError, match="No such file"):
        unite([tmp_path / "nobody.json"], VALUES)


@pytest.mark.parametrize(("name", "address"), [("A b", "h:1"), ("a", "nowhere"), ("a", "h:99999")])
def test_a_member_that_no_genesis_would_take_gets_no_home(tmp_path, name, address):
    with pytest.raises(ConfigError, match="Remedy"):
        equip(Home(tmp_path / "home"), name, address, {}, "0.0.0.0:1")
    assert not (tmp_path / "home").exists()


def test_a_home_is_equipped_once(tmp_path):
    cards(tmp_path, "a")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match="exists"):
        cards(tmp_path, "a")
    assert tree(tmp_path) == before
