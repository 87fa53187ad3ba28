"""What is signed together: few signatures, each of one form. What they are good for: `test_identity.py`."""

import blake3
import pytest

from p2pnode.joint import DOMAIN, LENGTHS, NAME_BYTES, TOGETHER_MAX, names_of, sign_together, signatures


def sign(statement):
    return blake3.blake3(statement).digest(length=64)


def statements(count):
    return [b"statement %d" % number for number in range(count)]


@pytest.mark.parametrize(
    ("count", "lengths"), [(0, []), (1, [64]), (2, [128]), (8, [320]), (9, [64, 320]), (11, [160, 320])]
)
def test_as_many_are_signed_together_as_can_be(count, lengths):
    signed = sign_together(sign, statements(count))
    assert list(signed) == statements(count)
    assert sorted(map(len, set(signed.values()))) == lengths
    assert LENGTHS.issuperset(lengths)
    assert signatures(count) == len(lengths)


def test_one_alone_is_signed_as_it_is():
    assert sign_together(sign, [b"one"]) == {b"one": sign(b"one")} == sign_together(sign, [b"one", b"one"])


def test_a_set_of_statements_has_one_form():
    some = statements(TOGETHER_MAX)
    signed = sign_together(sign, some)
    assert sign_together(sign, some[::-1]) == signed
    assert sign_together(sign, some + some) == signed
    names = b"".join(sorted(blake3.blake3(statement).digest() for statement in some))
    assert signed[some[0]] == sign(DOMAIN + names) + names


def test_the_names_are_told_to_whose_statement_is_among_them_and_only_in_order():
    joint = sign_together(sign, [b"one", b"two", b"three"])[b"one"]
    names = joint[64:]
    assert names_of(b"two", joint) == names
    assert names_of(b"four", joint) is None
    first, rest = names[:NAME_BYTES], names[NAME_BYTES:]
    for changed in (rest + first, first + names, first, b"", names + b"x", names[:-1], b"".join([names] * 3)):
        assert names_of(b"two", joint[:64] + changed) is None
