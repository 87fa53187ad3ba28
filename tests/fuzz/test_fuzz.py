"""Whatever is read from outside is accepted, or refused by the error that its reader documents; nothing else happens.

The same targets are fuzzed by coverage with `scripts/fuzz`; what that finds lies in `corpus/TARGET/` and is replayed
here, at every run.
"""

import subprocess
import sys
import tracemalloc
from functools import cache
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode.codec import EVIDENCE_MAGIC, MESSAGE_BYTES_MAX, encode, encode_evidence
from tests.fuzz.targets import TARGETS, evidence, message
from tests.p2pnode.test_codec import EVIDENCE, ONE_OF_EACH

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(CORPUS.glob("*/*"))

fuzz = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@cache
def samples(name):
    return tuple(TARGETS[name].samples())


def spans(data):
    """(begin, end) in these bytes, more often a short one."""
    return st.tuples(st.integers(0, len(data)), st.integers(0, 9) | st.integers(0, len(data))).map(
        lambda at: (at[0], min(len(data), at[0] + at[1]))
    )


@st.composite
def mutants(draw, name):
    """A sample with a few things done to it."""
    data = draw(st.sampled_from(samples(name)))
    words = st.sampled_from(TARGETS[name].words or (b"",)) | st.binary(max_size=9)
    for _ in range(draw(st.integers(1, 4))):
        begin, end = draw(spans(data))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "delete", "repeat", "splice", "length"]))
        if kind == "flip" and begin < len(data):
            data = data[:begin] + bytes([data[begin] ^ 1 << draw(st.integers(0, 7))]) + data[begin + 1 :]
        elif kind == "cut":
            data = data[:begin]
        elif kind == "insert":
            data = data[:begin] + draw(words) + data[begin:]
        elif kind == "overwrite":
            word = draw(words)
            data = data[:begin] + word + data[begin + len(word) :]
        elif kind == "delete":
            data = data[:begin] + data[end:]
        elif kind == "repeat":
            data = data[:end] + data[begin:end] * draw(st.integers(1, 9)) + data[end:]
        elif kind == "splice":
            other = draw(st.sampled_from(samples(name)))
            data = data[:begin] + other[draw(st.integers(0, len(other))) :]
        elif kind == "length" and begin < len(data):
            data = data[:begin] + bytes([draw(st.sampled_from([0, 1, 127, 128, 255]))]) + data[begin + 1 :]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_every_sample_is_accepted(name):
    """Else its mutants would say little."""
    assert [TARGETS[name].reads(data) for data in samples(name)] == [True] * len(samples(name))


@pytest.mark.parametrize("name", TARGETS)
def test_what_resembles_the_right_bytes_is_accepted_or_refused(name):
    @fuzz
    @given(mutants(name))
    def read(data):
        TARGETS[name].reads(data)

    read()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_accepted_or_refused(name):
    @settings(fuzz, max_examples=50)
    @given(st.binary(max_size=300))
    def read(data):
        TARGETS[name].reads(data)

    read()


@pytest.mark.parametrize("name", TARGETS)
def test_no_end_is_missing_unnoticed(name):
    """However the bytes end, they are read to no more than their end."""
    shortest = min(samples(name), key=len)
    for end in range(len(shortest)):
        TARGETS[name].reads(shortest[:end])


@pytest.mark.parametrize("file", KEPT, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_was_found_once_stays_mended(file):
    TARGETS[file.parent.name].reads(file.read_bytes())


def spelt(value, draw):
    """An encoding of the value, the shortest one or another that means the same."""
    if isinstance(value, int):
        wide = [(0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)]
        return draw(value, [bytes([byte]) + value.to_bytes(n, "big") for byte, n in wide if value < 1 << 8 * n])
    if isinstance(value, bytes):
        wide = [(0xC4, 1), (0xC5, 2), (0xC6, 4)]
        return draw(value, [bytes([byte]) + len(value).to_bytes(n, "big") + value for byte, n in wide])
    inner = b"".join(spelt(each, draw) for each in value)
    short = bytes([0x90 + len(value)]) if len(value) < 16 else b""
    heads = [short, *(bytes([byte]) + len(value).to_bytes(n, "big") for byte, n in [(0xDC, 2), (0xDD, 4)])]
    return draw(None, [head for head in heads if head]) + inner


def otherwise(canonical, rng, share):
    """These bytes, with this share of their fields spelt in any of the ways that there are."""

    def draw(value, spellings):
        shortest = [msgpack.packb(value)] if value is not None else spellings[:1]
        return rng.choice(spellings) if rng.random() < share else shortest[0]

    data = spelt(msgpack.unpackb(canonical, use_list=False), draw)
    assert msgpack.unpackb(data, use_list=False) == msgpack.unpackb(canonical, use_list=False)
    return data


SHARES = st.sampled_from([0.02, 0.2, 1.0])


@fuzz
@given(st.sampled_from(ONE_OF_EACH), st.randoms(use_true_random=False), SHARES)
def test_a_message_spelt_otherwise_in_any_of_its_fields_is_refused(each, rng, share):
    data = otherwise(encode(each), rng, share)
    assert message(data) == (data == encode(each))


@fuzz
@given(st.randoms(use_true_random=False), SHARES)
def test_evidence_spelt_otherwise_in_any_of_its_fields_is_refused(rng, share):
    canonical = encode_evidence(EVIDENCE).removeprefix(EVIDENCE_MAGIC)
    data = otherwise(canonical, rng, share)
    assert evidence(data) == (data == canonical)


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x92\x01", b"\xdd\xff\xff\xff\xff", b"\xdc\x04\0", b"\xc6\xff\xff\xff\xff"]
)
def test_what_is_refused_takes_no_more_memory_than_the_largest_message(opening):
    data = (opening * MESSAGE_BYTES_MAX)[:MESSAGE_BYTES_MAX]
    tracemalloc.start()
    assert not message(data)
    assert tracemalloc.get_traced_memory()[1] < 100 * MESSAGE_BYTES_MAX
    tracemalloc.stop()


def test_every_finding_that_is_kept_is_of_a_target():
    assert KEPT
    assert {file.parent.name for file in KEPT} <= set(TARGETS)


def test_without_the_fuzzer_it_is_said_how_to_get_it():
    said = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", "message"],
        cwd=CORPUS.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (2, "")
    assert "Remedy: run scripts/fuzz" in said.stderr
