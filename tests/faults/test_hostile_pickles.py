"""Pickles and checkpoints of strangers: whatever public attacks do, nothing of it runs, and each is
one clear message at once.

A canary is a file that the attack would make. Every way around a list of allowed names that has
been published is here: each would pass a reader that allows modules by prefix, or that only
overrides `find_class`.
"""

import builtins
import contextlib
import io
import itertools
import os
import pickle
import struct
import time
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_builtin.untrusted.pickles import Limits, read_pickle
from nnunet_builtin.untrusted.torch_files import read_checkpoint
from nnunet_core.errors import StorageError

CANARY = "canary"
CODE = f"open('{CANARY}', 'w').close()"
SHELL = f"touch {CANARY}"


def text(value):
    """Return instructions that push a text."""
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def calling(module, name, *arguments, how=b"R"):
    """Return a pickle that calls a name, of protocol 2, with texts or what instructions push."""
    pushed = b"(" + b"".join(a if isinstance(a, bytes) else text(a) for a in arguments) + b"t"
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + pushed + how + b"."


def calling_by_stack(module, name, *arguments):
    """Return a pickle that calls a name of protocol 4, which may have dots."""
    pushed = b"(" + b"".join(text(argument) for argument in arguments) + b"t"
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + pushed + b"R."


def through_getattr():
    """Return a pickle that calls getattr(getattr(os, ...)) from its own parts."""
    get = b"cbuiltins\ngetattr\n(cos\nsystem\n" + text("__call__") + b"tR"
    return b"\x80\x02" + get + b"(" + text(SHELL) + b"tR."


def extension(code):
    """Return a pickle that calls what is registered under a number, which needs no name."""
    return b"\x80\x02" + code + b"(" + text(SHELL) + b"tR."


def persistent(identity):
    """Return a pickle with a persistent id."""
    return b"\x80\x02" + identity + b"Q."


def built(state, target=b"cbuiltins\nlist\n)R"):
    """Return a pickle that hands a state to an object."""
    return b"\x80\x02" + target + state + b"b."


SHELL_ARGUMENTS = b"(" + text(SHELL) + b"t"
ATTACKS = {
    "os.system": calling("os", "system", SHELL),
    "posix.system": calling("posix", "system", SHELL),
    "subprocess": calling("subprocess", "getoutput", SHELL),
    "builtins.eval": calling("builtins", "eval", CODE),
    "builtins.exec": calling("builtins", "exec", CODE),
    "__builtin__.eval": calling("__builtin__", "eval", CODE),
    "builtins.getattr": through_getattr(),
    "builtins.__import__": calling("builtins", "__import__", "this"),
    "builtins.open": calling("builtins", "open", CANARY, "w"),
    "NEWOBJ": calling("os", "system", SHELL, how=b"\x81"),
    "numpy runstring": calling("numpy.testing._private.utils", "runstring", CODE, b"}"),
    "numpy.testing runstring": calling("numpy.testing", "runstring", CODE, b"}"),
    "numpy.f2py": calling("numpy.f2py.diagnose", "run_command", SHELL),
    "numpy.f2py.crackfortran": calling("numpy.f2py.crackfortran", "getlincoef", CODE, "x"),
    "numpy.distutils": calling("numpy.distutils.exec_command", "exec_command", SHELL),
    "numpy builtins": calling_by_stack("numpy.core.multiarray", "__builtins__"),
    "numpy builtins, old": calling("numpy.core.multiarray", "__builtins__"),
    "numpy.load": calling("numpy", "load", CANARY),
    "numpy.core.multiarray.fromfile": calling("numpy.core.multiarray", "fromfile", CANARY),
    "dotted name": calling_by_stack("collections", "OrderedDict.__init__.__globals__"),
    "dotted name to os": calling_by_stack("numpy", "ndarray.os.system", SHELL),
    "dotted module": calling_by_stack("builtins.eval", "__call__", CODE),
    "dotted, allowed first": calling_by_stack("numpy", "dtype.__class__", CODE),
    "torch's loader": calling("torch.serialization", "load", CANARY),
    "torch.hub": calling("torch.hub", "load", "a/b", "c"),
    "torch._inductor": calling("torch._inductor.codecache", "compile_file", CODE),
    "torch.utils": calling("torch.utils.data.datapipes.utils.decoder", "basichandlers", "a"),
    "torch.storage": calling("torch.storage", "_load_from_bytes", CODE),
    "asyncio": calling("asyncio.unix_events", "_UnixSubprocessTransport._start", SHELL),
    "pip": calling("pip", "main", SHELL),
    "pydoc": calling("pydoc", "pipepager", "a", SHELL),
    "timeit": calling("timeit", "timeit", CODE),
    "cProfile": calling("cProfile", "run", CODE),
    "idlelib": calling("idlelib.pyshell", "ModifiedInterpreter.runcommand", CODE),
    "copyreg": calling("copyreg", "_reconstructor", CODE),
    "operator": calling("operator", "attrgetter", "system"),
    "functools.partial": calling("functools", "partial", CODE),
    "module of the folder": calling("local_evil", "run", SHELL),
    "empty name": calling_by_stack("", "", SHELL),
    "a name with a null byte": calling_by_stack("os\0", "system", SHELL),
    "look-alike": calling_by_stack("ｏs", "system", SHELL),
    "EXT1": extension(b"\x82\x01"),
    "EXT2": extension(b"\x83\x01\x00"),
    "EXT4": extension(b"\x84\x01\x00\x00\x00"),
    "INST": b"(" + f"S'{SHELL}'\n".encode() + b"ios\nsystem\n.",
    "OBJ": b"(cos\nsystem\n" + text(SHELL) + b"o.",
    "NEWOBJ_EX": b"\x80\x04" + text("os") + text("system") + b"\x93)}\x92.",
    "PERSID": b"Pcanary\n.",
    "BINPERSID": persistent(text(CANARY)),
    "REDUCE of a list": b"\x80\x02](" + text(SHELL) + b"tR.",
    "REDUCE of a dict": b"\x80\x02}(" + text(SHELL) + b"tR.",
    "REDUCE of a text": b"\x80\x02" + text("os.system") + SHELL_ARGUMENTS + b"R.",
    "REDUCE of a result": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
    "arguments that are no tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "BUILD of a list": built(b"}" + text("__setstate__") + b"cos\nsystem\ns"),
    "BUILD with a name": built(b"}" + text("__setstate__") + text("x") + b"s"),
    "BUILD of a name": built(b"}", b"ccollections\nOrderedDict\n"),
    "append to a dict": b"\x80\x02}" + text("a") + b"a.",
    "append to a name": b"\x80\x02ccollections\nOrderedDict\n" + text("a") + b"a.",
    "an entry of a list": b"\x80\x02]" + text("a") + text("b") + b"s.",
    "duplicate": b"\x80\x02]2a.",
    "nested": pickle.dumps({"a": [{"b": (1, 2)}]}, 2)[:-1] + calling("os", "system", SHELL)[2:],
    "second pickle by a name": calling("pickle", "loads", "x"),
    "out of band": b"\x80\x05\x97.",
    "read-only out of band": b"\x80\x05]\x98.",
}


def array(shape, dtype="f8", content=b""):
    """Return a pickle of an array with a shape that it only claims."""
    sizes = b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", size) for size in shape) + b"t"
    typed = b"cnumpy\ndtype\n(" + text(dtype) + b"K\x00K\x01tR"
    raw = b"B" + struct.pack("<I", len(content)) + content
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
    return b"\x80\x03" + made + b"(K\x01" + sizes + typed + b"\x89" + raw + b"tb."


def laughs(levels, container=b"]", add=b"a"):
    """Return a pickle of containers that each hold the one before ten times."""
    content = b"\x80\x02" + container + b"q\x00" + text("ha") + add
    for level in range(1, levels):
        place = bytes([level])
        content += container + b"q" + place + (b"h" + bytes([level - 1]) + add) * 10
    return content + b"."


def tuples(levels):
    """Return a pickle with a key of tuples of tuples, whose hash takes forever."""
    content = b"\x80\x02}" + text("a") + b"q\x00"
    for level in range(1, levels):
        content += b"h" + bytes([level - 1]) + b"h" + bytes([level - 1]) + b"\x86q" + bytes([level])
    return content + b"K\x01s."


def one_hash(count):
    """Return a pickle of keys that have one hash: tuples of -1 and -2, whose hashes are one."""
    keys = itertools.islice(itertools.product((b"h\x00", b"h\x01"), repeat=20), count)
    numbers = b"J\xff\xff\xff\xffq\x000J\xfe\xff\xff\xffq\x010"
    return b"\x80\x02" + numbers + b"}(" + b"".join(b"(%stN" % b"".join(k) for k in keys) + b"u."


def deep(levels):
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


def copies(count):
    """Return a pickle that copies a list again and again."""
    listed = b"(" + b"N" * 10_000 + b"e"
    return b"\x80\x02]q\x00" + listed + b"(" + b"cbuiltins\nlist\nh\x00\x85R" * count + b"l."


#: What would take the memory or the time of a machine; some of it is only damaged.
BOMBS = {
    "laughs": laughs(12),
    "laughs of tuples": b"\x80\x02)q\x00"
    + b"".join(
        b"(" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 9 + b"tq" + bytes([i + 1])
        for i in range(12)
    )
    + b".",
    "a key that takes forever to hash": tuples(60),
    "a member that does": b"\x80\x04\x8f(" + tuples(60)[3:-4] + b"\x90.",
    "keys of one hash": one_hash(20_000),
    "keys of 0 and nothing": b"\x80\x02}K\x00" + text("") + b"\x86Ns.",
    "deep": deep(100_000),
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dict in itself": b"\x80\x02}q\x00" + text("a") + b"h\x00s.",
    "copies": copies(2_000),
    "an array of 100 TB": array((10**13,)),
    "an array of 100 TB of texts": array((10**8,), "U250000", b"x" * 8),
    "an array with a negative size": array((-1, -8), content=b"\0" * 64),
    "an array with an impossible shape": array((2**62, 4), content=b"\0" * 8),
    "an array without width": array((10**15,), "S0"),
    "an array of structures": array((1,), "V8", b"\0" * 8),
    "many axes": array((1,) * 40, content=b"\0" * 8),
    "LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a number of a million bits": b"\x80\x02\x8b"
    + struct.pack("<i", 125_000)
    + b"\x7f" * 125_000
    + b".",
    "a negative length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "a long decimal": b"L" + b"9" * 500_000 + b"L\n.",
    "a line without end": b"V" + b"a" * (3 << 20),
    "a frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f" + b"N.",
    "BINUNICODE8": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "BINBYTES8": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "BYTEARRAY8": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
    "BINBYTES": b"\x80\x03B\xff\xff\xff\x7f.",
    "bytes of a text": b"\x80\x02c_codecs\nencode\n(" + text("a") + text("unicode_escape") + b"tR.",
    "a codec": b"\x80\x02c_codecs\nencode\n(" + text("a" * 99) + text("bz2") + b"tR.",
    "a place that nobody filled": b"\x80\x02h\x07.",
    "a value from below a mark": b"\x80\x02]N(a.",
    "an empty stack": b"\x80\x02.",
    "a mark that is none": b"\x80\x02t.",
    "odd entries": b"\x80\x02}(" + text("a") + b"u.",
    "a key that is a list": b"\x80\x02}]" + text("a") + b"s.",
    "truncated": pickle.dumps({"plans": list(range(1000))})[:-20],
    "nothing": b"",
    "text": b"this is no pickle\n",
    "a folder of zips": b"PK\x03\x04" + b"\0" * 40,
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder in which an attack would leave its canary, and a module that would leave
    one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "local_evil.py").write_text(CODE)
    return tmp_path


def refused(read, path):
    """Read a file; return the message that refuses it."""
    started, before = time.process_time(), set(path.parent.iterdir())
    opened = []
    with (
        mock.patch.object(os, "system", side_effect=opened.append),
        mock.patch.object(builtins, "eval", side_effect=opened.append),
        pytest.raises(StorageError) as error,
    ):
        read(path)
    assert not opened
    assert set(path.parent.iterdir()) == before
    assert time.process_time() - started < 20
    message = str(error.value)
    assert str(path) in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_a_pickle_is_run(here, name):
    (here / "plans.pkl").write_bytes(ATTACKS[name])
    message = refused(read_pickle, here / "plans.pkl")
    assert "is not read, and nothing of it was run" in message


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_take_memory_or_time_are_refused_at_once(here, name):
    (here / "plans.pkl").write_bytes(BOMBS[name])
    refused(read_pickle, here / "plans.pkl")


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "numpy runstring", "INST"])
def test_the_attacks_are_real(here, name):
    """Python's own unpickler does what they say: the canary of this test can die."""
    with contextlib.suppress(Exception):
        pickle.loads(ATTACKS[name])
    assert (here / CANARY).exists()


def zipped(content, **entries):
    """Return a file of torch.save with another pickle."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        for name, value in entries.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", value)
    return made.getvalue()


def old(content):
    """Return a file of torch.save before 1.6 with another pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join([*parts, content, pickle.dumps([], 2)])


@pytest.mark.parametrize("form", [zipped, old], ids=["zip", "old"])
@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "BINPERSID"])
def test_nothing_of_a_checkpoint_is_run(here, name, form):
    (here / "checkpoint_final.pth").write_bytes(form(ATTACKS[name]))
    message = refused(read_checkpoint, here / "checkpoint_final.pth")
    assert "is not read, and nothing of it was run" in message


def test_the_pickles_around_an_old_checkpoint_run_nothing_either(here):
    evil = calling("os", "system", SHELL)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    for content in (evil, magic + evil, old(pickle.dumps({}, 2))[:-5] + evil):
        (here / "a.model").write_bytes(content)
        refused(read_checkpoint, here / "a.model")


def tensor(storage=b"", offset=0, size=(2,), stride=(1,), kind="FloatStorage", count=2):
    """Return a pickle of one tensor in the storage `data/0`."""
    numbers = [
        b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in ns) + b"t"
        for ns in (size, stride)
    ]
    identity = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text("0")
        + text("cpu")
        + b"\x8a\x08"
        + struct.pack("<q", count)
        + b"tQ"
    )
    place = b"\x8a\x08" + struct.pack("<q", offset)
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + (storage or identity)
        + place
        + numbers[0]
        + numbers[1]
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


TENSORS = {
    "more than its storage": tensor(size=(3,)),
    "behind its storage": tensor(offset=1),
    "before its storage": tensor(offset=-1),
    "strides that leave it": tensor(stride=(5,)),
    "negative strides": tensor(stride=(-1,)),
    "a negative size": tensor(size=(-2,)),
    "100 TB of one value": tensor(size=(10**7, 10**7), stride=(0, 0)),
    "sizes that overflow": tensor(size=(2**40, 2**40), stride=(1, 1)),
    "a storage larger than its entry": tensor(count=3, size=(3,)),
    "a storage of 100 TB": tensor(count=10**14, size=(10**14,)),
    "a storage of a negative size": tensor(count=-1),
    "a storage of text": tensor(storage=text("x")),
    "a class that is no storage": tensor(kind="nn"),
    "a type that is called": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "a number type that is called": b"\x80\x02ctorch\nfloat32\n)R.",
    "a persistent id of something else": persistent(text(CANARY)),
    "a persistent id with a path": persistent(
        b"(" + text("storage") + text("../../etc/passwd") + b"t"
    ),
    "a parameter of a name": calling("torch._utils", "_rebuild_parameter", "x", "y", "z"),
    "a device of numbers": b"\x80\x02ctorch\ndevice\n(K\x01tR.",
    "a size of names": calling("torch", "Size", "x"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_stay_within_the_file(here, name):
    floats = np.zeros(2, np.float32).tobytes()
    (here / "a.model").write_bytes(zipped(TENSORS[name], data__0=floats))
    refused(read_checkpoint, here / "a.model")


def test_a_storage_in_another_entry_is_not_found(here):
    path = here / "a.model"
    path.write_bytes(zipped(tensor().replace(text("0"), text("../version")), data__0=b"\0" * 8))
    assert "missing" in refused(read_checkpoint, path)


def test_compressed_entries_are_no_way_to_fill_the_memory(here):
    with zipfile.ZipFile(here / "a.model", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor(count=1 << 24, size=(1 << 24,)))
        archive.writestr("archive/data/0", bytes(1 << 26))
    assert "compressed" in refused(read_checkpoint, here / "a.model")


def test_entries_that_claim_more_than_the_file_has_are_refused(here):
    sizes = struct.pack("<II", 8, 8)
    forged = zipped(tensor(), data__0=bytes(8)).replace(sizes, struct.pack("<II", 1 << 30, 1 << 30))
    (here / "a.model").write_bytes(forged)
    assert "larger than the file" in refused(read_checkpoint, here / "a.model")


def test_a_file_of_two_pickles_or_of_code_is_none(here):
    empty = pickle.dumps({}, 2)
    with zipfile.ZipFile(here / "a.model", "w") as archive:
        archive.writestr("a/data.pkl", empty)
        archive.writestr("b/data.pkl", empty)
    refused(read_checkpoint, here / "a.model")
    (here / "b.model").write_bytes(
        zipped(empty, constants__pkl=empty).replace(b"constants/pkl", b"constants.pkl")
    )
    assert "TorchScript" in refused(read_checkpoint, here / "b.model")
    (here / "c.model").write_bytes(zipped(empty, byteorder="big"))
    assert "byte order" in refused(read_checkpoint, here / "c.model")


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "old"])
def test_truncated_and_changed_checkpoints_are_refused(here, zip_format):
    path = here / "a.model"
    torch.save(
        {"state_dict": {"w": torch.randn(1000)}}, path, _use_new_zipfile_serialization=zip_format
    )
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(read_checkpoint, path)
    if zip_format:  # the old format has no checksums
        middle = whole.index(
            np.float32(torch.load(io.BytesIO(whole))["state_dict"]["w"][9]).tobytes()
        )
        path.write_bytes(whole[:middle] + b"\x01\x02" + whole[middle + 2 :])
        refused(read_checkpoint, path)


@given(st.binary(max_size=40), st.integers(0, 3000), st.booleans())
def test_damaged_checkpoints_are_one_kind_of_error(tmp_path_factory, noise, position, zip_format):
    path = tmp_path_factory.mktemp("noise") / "a.model"
    content = {"state_dict": {"w": torch.arange(9.0)}, "epoch": np.float64(3), "names": ["a"] * 9}
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    whole = path.read_bytes()
    path.write_bytes(whole[:position] + noise + whole[position + len(noise) :])
    with contextlib.suppress(StorageError):
        read_checkpoint(path)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_pickles_are_one_kind_of_error(tmp_path_factory, noise, position):
    path = tmp_path_factory.mktemp("noise") / "plans.pkl"
    content = pickle.dumps({"a": np.arange(9.0), "b": [np.str_("c")] * 3, "d": {1: (2, None)}})
    path.write_bytes(content[:position] + noise + content[position + len(noise) :])
    with contextlib.suppress(StorageError):
        read_pickle(path)


def test_limits_are_the_callers(here):
    path = here / "plans.pkl"
    path.write_bytes(pickle.dumps([list(range(100))] * 100))
    read_pickle(path)
    for limits in (Limits(size=50), Limits(instructions=50), Limits(values=50), Limits(depth=1)):
        with pytest.raises(StorageError, match="asks for"):
            read_pickle(path, limits)


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
def test_what_is_no_file_is_not_waited_for(here, kind):
    path = here / "plans.pkl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    for read in (read_pickle, read_checkpoint):
        with pytest.raises(StorageError, match="cannot be read"):
            read(path)
