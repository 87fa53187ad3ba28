"""Checkpoints and the outbox: what is read is what was written, or nothing; and reading never raises."""

import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save

from p2pnode.errors import DiskError
from p2pnode.storage.checkpoint import Checkpoint, Outbox, _checksum, load_checkpoint, save_checkpoint
from p2pnode.storage.vectors import digest_of
from protocols.header import STEP_MAX, Slot

NETWORK = b"n" * 32
STATE = Checkpoint(7, {"model": np.arange(6, dtype=np.float32).reshape(2, 3), "momentum": np.ones(3, np.float32)})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint"


def same(one, other):
    return one.step == other.step and {k: (v.shape, v.tobytes()) for k, v in one.tensors.items()} == {
        k: (v.shape, v.tobytes()) for k, v in other.tensors.items()
    }


@pytest.mark.parametrize("step", [0, 7, STEP_MAX])
@pytest.mark.parametrize(
    "tensors",
    [
        {},
        STATE.tensors,
        {"scalar": np.array(3.5, np.float32), "empty": np.zeros((2, 0), np.float32)},
        {"odd": np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)},
        {"turned": np.arange(6, dtype=np.float32).reshape(2, 3).T, "strided": np.arange(9, dtype=np.float32)[::2]},
        {"näme\0": np.zeros(1, np.float32)},
    ],
)
def test_a_checkpoint_comes_back_bit_by_bit(path, step, tensors):
    save_checkpoint(path, NETWORK, Checkpoint(step, tensors))
    assert same(load_checkpoint(path, NETWORK), Checkpoint(step, tensors))


def test_what_is_not_there_or_of_another_network_is_none(path):
    assert load_checkpoint(path, NETWORK) is None
    save_checkpoint(path, NETWORK, STATE)
    assert load_checkpoint(path, b"m" * 32) is None
    assert load_checkpoint(path.parent, NETWORK) is None


def test_a_checkpoint_damaged_at_any_bit_or_cut_anywhere_is_none(path):
    """The step too: a node that went on from another step would train on other batches than it signed for."""
    save_checkpoint(path, NETWORK, STATE)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position])
        assert load_checkpoint(path, NETWORK) is None
        for bit in range(8):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            assert load_checkpoint(path, NETWORK) is None


def sealed(tensors, **metadata):
    metadata = {name: value for name, value in metadata.items() if value is not None}
    return save(tensors, {**metadata, "checksum": _checksum(tensors, metadata)})


@pytest.mark.parametrize("step", [None, "", "x", "-1", "+1", "1.0", "1e3", " 1", "1\n", "٣", "1_0", "9" * 5000])
def test_a_step_that_is_no_number_is_none_even_under_a_right_checksum(path, step):
    path.write_bytes(sealed(STATE.tensors, network=NETWORK.hex(), step=step))
    assert load_checkpoint(path, NETWORK) is None
    path.write_bytes(sealed(STATE.tensors, network=NETWORK.hex(), step="7"))
    assert same(load_checkpoint(path, NETWORK), STATE)


def test_other_numbers_than_float32_are_none_even_under_a_right_checksum(path):
    told = []
    path.write_bytes(sealed({"model": np.arange(4)}, network=NETWORK.hex(), step="7"))
    assert load_checkpoint(path, NETWORK, lambda path, why: told.append(why)) is None
    assert told == ["it holds other numbers than float32"]


def test_metadata_that_is_missing_is_none(path):
    for content in (save(STATE.tensors), sealed(STATE.tensors), sealed(STATE.tensors, step="7"), save({})):
        path.write_bytes(content)
        assert load_checkpoint(path, NETWORK) is None


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"),
    [
        ("BF16", [2], 4),
        ("F8_E4M3", [4], 4),
        ("F8_E8M0", [4], 4),
        ("F4", [8], 4),
        ("F32", [2**62, 0], 0),
        ("F32", [2**63, 0], 0),
        ("F32", [1] * 100, 4),
        ("F32", [2], 4),
        ("XYZ", [1], 4),
    ],
)
def test_tensors_of_types_and_shapes_that_numpy_lacks_are_none(path, dtype, shape, nbytes):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, nbytes]}
    path.write_bytes(raw({"__metadata__": {"network": NETWORK.hex(), "step": "1"}, "x": entry}, bytes(nbytes)))
    assert load_checkpoint(path, NETWORK) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.integers(0, 2**64 - 1))
def test_any_bytes_are_none(path, data, declared):
    for content in (data, raw(data), struct.pack("<Q", declared) + data, raw({"__metadata__": None, "x": [1]})):
        path.write_bytes(content)
        assert load_checkpoint(path, NETWORK) is None


def test_other_shapes_of_the_same_bytes_are_none(path):
    save_checkpoint(path, NETWORK, STATE)
    path.write_bytes(path.read_bytes().replace(b"[2,3]", b"[3,2]"))
    assert load_checkpoint(path, NETWORK) is None


@pytest.mark.parametrize("broken", [(os, "write"), (os, "fsync"), (Path, "replace")])
def test_a_crash_while_saving_leaves_the_old_checkpoint(path, monkeypatch, broken):
    save_checkpoint(path, NETWORK, STATE)

    def fail(*_):
        raise OSError("no power")

    with monkeypatch.context() as crash:
        crash.setattr(*broken, fail)
        with pytest.raises(DiskError, match="no power"):
            save_checkpoint(path, NETWORK, Checkpoint(8, {}))
    assert same(load_checkpoint(path, NETWORK), STATE)
    save_checkpoint(path, NETWORK, Checkpoint(8, {}))
    assert same(load_checkpoint(path, NETWORK), Checkpoint(8, {}))


def vector(value):
    return np.full(5, value, np.float32)


@pytest.mark.parametrize("dtype", [np.uint16, np.float16])
def test_what_was_said_in_two_bytes_a_number_is_kept_bit_for_bit(tmp_path, dtype):
    said = np.arange(2**16, dtype=np.uint16).view(dtype)  # each kind of NaN among them
    Outbox(tmp_path, NETWORK).put(Slot(1), said, digest_of(said))
    kept = Outbox(tmp_path, NETWORK).get(Slot(1))
    assert (kept.dtype, kept.tobytes()) == (said.dtype, said.tobytes())


def test_the_outbox_keeps_two_steps_with_every_slot_and_writes_over_what_is_older_than_three(tmp_path):
    outbox = Outbox(tmp_path / "outbox", NETWORK)
    steps = [[Slot(9), Slot(9, 0, 2), Slot(9, 0, 10)], [Slot(10), Slot(10, 1)], [Slot(11)], [Slot(12)], [Slot(13)]]
    slots = [slot for step in steps for slot in step]
    there = [slots[:3], slots[:5], slots[:6], slots[1:7], slots[2:]]
    for number, step in enumerate(steps):
        for slot in step:
            outbox.put(slot, vector(slot.step), digest_of(vector(slot.step)))
        assert list(outbox.kept()) == [slot for each in steps[max(0, number - 1) : number + 1] for slot in each]
        for slot in there[number]:
            assert outbox.get(slot)[0] == slot.step
    assert list(Outbox(tmp_path / "outbox", NETWORK).kept()) == slots[-2:]
    assert outbox.get(Slot(9)) is None


def test_vectors_take_no_more_files_however_long_a_run_is(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    for step in range(20):
        outbox.put(Slot(step), vector(step), digest_of(vector(step)))
    assert list(outbox.kept()) == [Slot(18), Slot(19)]
    assert len(list(tmp_path.iterdir())) == 3


def test_as_many_steps_are_kept_as_are_told_again(tmp_path):
    outbox = Outbox(tmp_path, NETWORK, steps=4)
    for step in range(20):
        outbox.put(Slot(step), vector(step), digest_of(vector(step)))
        assert all(outbox.get(Slot(past))[0] == past for past in range(max(0, step - 3), step + 1))
    assert list(outbox.kept()) == [Slot(18), Slot(19)]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_crash_amid_a_write_loses_and_damages_nothing(tmp_path, monkeypatch):
    told = []
    outbox = Outbox(tmp_path, NETWORK)
    for step in range(5):
        outbox.put(Slot(step), vector(step), digest_of(vector(step)))
    with monkeypatch.context() as crash:
        crash.setattr(os, "fdatasync", lambda fd: os.ftruncate(fd, 99) or (_ for _ in ()).throw(OSError("no power")))
        with pytest.raises(DiskError, match="no power"):
            outbox.put(Slot(5), vector(5), digest_of(vector(5)))
    assert list(Outbox(tmp_path, NETWORK, lambda path, why: told.append(path)).kept()) == [Slot(3), Slot(4)]
    assert told == []


def test_vectors_whose_names_a_power_cut_undid_are_those_of_the_slots_that_they_say(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    for step in range(3):
        outbox.put(Slot(step), vector(step), digest_of(vector(step)))
    names = sorted(tmp_path.iterdir())
    for step in range(3, 8):
        outbox.put(Slot(step), vector(step), digest_of(vector(step)))
    for file, name in zip(sorted(tmp_path.iterdir()), [names[2], *names[:2]], strict=True):
        file.replace(name)
    kept = Outbox(tmp_path, NETWORK).kept()
    assert {slot.step: own[0] for slot, own in kept.items()} == {6: 6, 7: 7}


@pytest.mark.parametrize("cut", [0, 20, 200])
def test_what_a_crash_left_of_a_vector_is_no_damage_and_what_is_needed_is(tmp_path, cut):
    told = []
    for step in range(3):
        Outbox(tmp_path, NETWORK).put(Slot(step), vector(step), digest_of(vector(step)))
    oldest, _, newest = sorted(tmp_path.iterdir())
    oldest.write_bytes(oldest.read_bytes()[:cut])
    assert list(Outbox(tmp_path, NETWORK, lambda path, why: told.append(path)).kept()) == [Slot(1), Slot(2)]
    assert told == []
    newest.write_bytes(newest.read_bytes()[:cut])
    assert list(Outbox(tmp_path, NETWORK, lambda path, why: told.append(path)).kept()) == [Slot(1)]
    assert told == [newest]


def test_a_vector_of_an_earlier_step_makes_the_outbox_forget_no_later_one(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    for step in (5, 6, 3, 4):
        outbox.put(Slot(step), vector(step), digest_of(vector(step)))
    assert list(outbox.kept()) == [Slot(5), Slot(6)]
    assert [outbox.get(Slot(step))[0] for step in (3, 4)] == [3, 4]


def test_slots_come_in_the_order_of_the_conversation_and_only_where_they_can_be_read(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    assert list(outbox.kept()) == []
    ordered = [Slot(9, 255, 65535), Slot(10), Slot(10, 0, 2), Slot(10, 0, 10), Slot(10, 2), Slot(10, 11)]
    for slot in reversed(ordered):
        outbox.put(slot, vector(1), digest_of(vector(1)))
    for stray in ("notes", "10.safetensors", f"{10:020}-{0:03}-{2:05}.safetensors.new"):
        (tmp_path / stray).write_bytes(b"x")
    (tmp_path / f"{10:020}-{0:03}-{3:05}.safetensors").write_bytes(b"x")
    assert list(outbox.kept()) == ordered
    Outbox(tmp_path, b"m" * 32).put(Slot(10, 2), vector(2), digest_of(vector(2)))
    assert list(outbox.kept()) == [slot for slot in ordered if slot != Slot(10, 2)]


def test_the_last_step_there_is_has_its_place_in_the_outbox(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    outbox.put(Slot(STEP_MAX, 255, 65535), vector(1), digest_of(vector(1)))
    assert list(outbox.kept()) == [Slot(STEP_MAX, 255, 65535)]


def test_what_another_network_left_is_not_read(tmp_path):
    Outbox(tmp_path, b"m" * 32).put(Slot(1), vector(1), digest_of(vector(1)))
    outbox = Outbox(tmp_path, NETWORK)
    assert outbox.get(Slot(1)) is None
    assert list(outbox.kept()) == []
    outbox.put(Slot(1), vector(2), digest_of(vector(2)))
    assert outbox.get(Slot(1))[0] == 2
    assert Outbox(tmp_path, b"m" * 32).get(Slot(1)) is None


def test_a_vector_under_a_right_checksum_but_of_no_network_is_not_read(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    outbox.put(Slot(1), vector(1), digest_of(vector(1)))
    [file] = tmp_path.iterdir()
    file.write_bytes(sealed({"vector": vector(1)}))
    assert outbox.get(Slot(1)) is None
    file.write_bytes(sealed({"other": vector(1)}, network=NETWORK.hex()))
    assert outbox.get(Slot(1)) is None
    file.write_bytes(sealed({"vector": vector(1)}, network=NETWORK.hex()))
    assert outbox.get(Slot(1)).tobytes() == vector(1).tobytes()


def test_a_vector_is_durable_when_put_returns(tmp_path, monkeypatch):
    """A new file, then its name, then the folder; later content alone. What is signed next must never outlive it."""
    outbox, done = Outbox(tmp_path, NETWORK), []
    for owner, name in ((os, "write"), (os, "fsync"), (os, "fdatasync"), (Path, "replace"), (Path, "unlink")):
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, name=name, call=call: (done.append(name), call(*given))[1])
    for step in (1, 2, 3):
        outbox.put(Slot(step), vector(1), digest_of(vector(1)))
    assert done == ["write", "write", "fsync", "replace", "fsync"] * 3
    done.clear()
    outbox.put(Slot(4), vector(4), digest_of(vector(4)))
    assert done == ["write", "write", "fdatasync", "replace"]


def test_a_vector_that_is_shorter_than_the_one_it_is_written_over_is_whole(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    outbox.put(Slot(1), np.ones(99, np.float32), digest_of(np.ones(99, np.float32)))
    outbox.put(Slot(9), vector(9), digest_of(vector(9)))
    assert outbox.get(Slot(9)).tobytes() == vector(9).tobytes()


def test_the_outbox_survives_a_restart_and_takes_a_slot_again(tmp_path):
    Outbox(tmp_path / "outbox", NETWORK).put(Slot(1), vector(1), digest_of(vector(1)))
    again = Outbox(tmp_path / "outbox", NETWORK)
    assert again.get(Slot(1)).tobytes() == vector(1).tobytes()
    assert again.get(Slot(0)) is None
    again.put(Slot(1), vector(2), digest_of(vector(2)))
    assert again.get(Slot(1))[0] == 2


def test_a_damaged_own_vector_is_as_good_as_none(tmp_path):
    outbox = Outbox(tmp_path, NETWORK)
    outbox.put(Slot(1), vector(1), digest_of(vector(1)))
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    for position in range(len(whole)):
        for content in (whole[:position], whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]):
            file.write_bytes(content)
            assert outbox.get(Slot(1)) is None
    file.write_bytes(save({"vector": vector(1)}))
    assert outbox.get(Slot(1)) is None
    outbox.put(Slot(1), vector(3), digest_of(vector(3)))
    assert outbox.get(Slot(1))[0] == 3


def test_crashes_while_putting_leave_the_old_vector_and_no_heap_of_files(tmp_path, monkeypatch):
    Outbox(tmp_path, NETWORK).put(Slot(1), vector(1), digest_of(vector(1)))
    with monkeypatch.context() as crash:
        crash.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no power")))
        for step in (1, 2, 3, 4):
            with pytest.raises(DiskError, match="no power"):
                Outbox(tmp_path, NETWORK).put(Slot(step), vector(9), digest_of(vector(9)))
            assert len(list(tmp_path.iterdir())) == 2 - (step == 4)
        monkeypatch.undo()
    outbox = Outbox(tmp_path, NETWORK)
    assert list(outbox.kept()) == [Slot(4)]
    assert outbox.get(Slot(4))[0] == 9
    assert len(list(tmp_path.iterdir())) == 1


def test_files_are_plain_safetensors(tmp_path, path):
    save_checkpoint(path, NETWORK, STATE)
    assert load_tensors(path.read_bytes()).keys() == STATE.tensors.keys()


def test_what_is_written_is_what_safetensors_writes_and_no_tensor_is_copied(path):
    tensors = {"b": np.arange(2**20, dtype=np.float32), "a": np.ones((2, 3), np.float32)}
    tracemalloc.start()
    save_checkpoint(path, NETWORK, Checkpoint(7, tensors))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    loaded = load_tensors(path.read_bytes())
    assert {name: tensor.tobytes() for name, tensor in loaded.items()} == {k: v.tobytes() for k, v in tensors.items()}
    assert path.stat().st_size == len(sealed(tensors, network=NETWORK.hex(), step="7"))
