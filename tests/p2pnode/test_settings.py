"""Settings: a wrong one is answered with its key, value, reason and remedy, and with nothing but a ConfigError."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from p2pnode.errors import ConfigError
from p2pnode.settings import Address, Settings, check, split_address


class Leaf(Settings):
    size: int = Field(1, description="choose a size")
    bare: int = 0

    @field_validator("size")
    @classmethod
    def _even(cls, size):
        if size % 2:
            raise ValueError("Odd sizes do not fit")
        return size


class Tree(Settings):
    leaves: tuple[Leaf, ...] = Field((), strict=False, description="list leaves")
    only: Leaf | None = None
    ratio: float = 0.5
    word: str = Field("", description="write a word")
    listen: Address = Field("h:1", description="write it as host:port")


def refusal(**values):
    with pytest.raises(ConfigError) as caught:
        check(Tree, values, "some.file")
    return str(caught.value)


def test_a_checked_table_is_frozen():
    tree = check(Tree, {"leaves": [{"size": 4}], "ratio": 1}, "here")
    assert tree == Tree(leaves=(Leaf(size=4),), ratio=1.0)
    with pytest.raises(ValueError, match="frozen"):
        tree.ratio = 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"leaves": [{}, {"size": "4"}]},
            "leaves.1.size = '4': input should be a valid integer. Remedy: choose a size",
        ),
        ({"only": {"size": 3}}, "only.size = '3': odd sizes do not fit. Remedy: choose a size"),
        (
            {"leaves": [7]},
            "leaves.0 = '7': input should be a valid dictionary or instance of Leaf. Remedy: list leaves",
        ),
        ({"only": {"bare": True}}, "only.bare = 'True': input should be a valid integer. Remedy: correct the value"),
        ({"sise": 1}, "sise = '1': extra inputs are not permitted. Remedy: remove it, or mend its spelling"),
        ({"only": {"x": 1}}, "only.x = '1': extra inputs are not permitted. Remedy: remove it, or mend its spelling"),
        (
            {"word": "\ud800"},
            "word = '\\ud800': 'utf-8' codec can't encode character '\\ud800' in position 0: surrogates not allowed. "
            "Remedy: write a word",
        ),
        ({"ratio": float("nan")}, "ratio = 'nan': input should be a finite number. Remedy: correct the value"),
    ],
)
def test_a_mistake_is_told_with_source_key_value_reason_and_remedy(values, message):
    assert refusal(**values) == f"some.file: {message}"


def test_every_mistake_is_told_on_a_line_of_its_own():
    assert [line.split(" = ")[0] for line in refusal(ratio="x", only=3, more=1).splitlines()] == [
        "some.file: only",
        "some.file: ratio",
        "some.file: more",
    ]


def test_a_missing_key_is_named_without_a_value():
    class Needs(Settings):
        name: str = Field(description="write a name")

    with pytest.raises(ConfigError, match=r"^x: name: field required\. Remedy: write a name$"):
        check(Needs, {}, "x")


def test_a_value_that_cannot_be_shown_is_still_refused_with_its_key():
    assert "ratio = 'xxx" in refusal(ratio="x" * 10**6)
    assert len(refusal(ratio="x" * 10**6)) < 200
    assert "leaves = a int too large to show" in refusal(leaves=1 << 40_000)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert "ratio = a list too large to show" in refusal(ratio=deep)


@pytest.mark.parametrize("address", ["h:0", "h:65535", "0.0.0.0:7000", "a.example:1", "höst:80"])
def test_an_address_is_host_and_port(address):
    host, port = address.split(":")
    assert split_address(check(Tree, {"listen": address}, "").listen) == (host, int(port))


@pytest.mark.parametrize(
    "address", ["", "h", "h:", ":1", "h:65536", "h:99999", "h:100000", "h:-1", "h:٣", "h h:1", "a:b:1", "h:1\n", "h:1 "]
)
def test_what_no_socket_can_use_is_no_address(address):
    message = refusal(listen=address)
    assert f"listen = {address!r}: " in message
    assert message.endswith("Remedy: write it as host:port")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("aé:1\ud800", max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["leaves", "only", "ratio", "listen", "else"]), anything))
def test_any_values_are_accepted_or_refused_with_a_config_error(values):
    try:
        check(Tree, values, "")
    except ConfigError:
        return
