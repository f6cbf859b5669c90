"""Pickles and files of torch.save that nobody tampered with are read as Python and PyTorch read
them.
"""

import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.untrusted.pickles import read_pickle
from nnunet_builtin.untrusted.torch_files import read_checkpoint

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
KEYS = st.text() | st.integers(-(2**31), 2**31) | st.tuples(st.integers(0, 9), st.integers(0, 9))
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16),
]


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(0, 5))
def test_plain_values_of_every_protocol(tmp_path_factory, value, protocol):
    path = tmp_path_factory.mktemp("plain") / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(path) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_and_ordered_values(tmp_path, protocol):
    shared = np.arange(6).reshape(2, 3)
    content = OrderedDict(
        integers=shared,
        again=shared,
        columns=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        empty=np.zeros((0, 3)),
        objects=np.array([{"a": 1}, None], object),
        texts=np.array(["ab", "c"]),
        big=np.arange(3, dtype=">f4"),
        scalars=[np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("x"), np.str_("")],
        members={1, "a"},
        frozen=frozenset([2]),
        key={np.int64(3): "three", (1, 2): "pair"},
    )
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_pickle(tmp_path / "a.pkl")
    assert list(found) == list(content)
    for name in ("integers", "again", "columns", "empty", "texts", "big", "objects"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype
    assert found["again"] is found["integers"]
    assert found["scalars"] == [1.5, -3, True, "x", ""]
    assert [type(value) for value in found["scalars"]] == [float, int, bool, str, str]
    assert (found["members"], found["frozen"]) == ({1, "a"}, {2})
    assert found["key"] == {3: "three", (1, 2): "pair"}


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "before 1.6"])
def test_tensors_of_every_type_and_view(tmp_path, zip_format):
    whole = torch.arange(24.0).reshape(4, 6)
    content = {
        "types": [torch.arange(12).to(dtype).reshape(3, 4) for dtype in DTYPES],
        "views": [whole, whole.t(), whole[1:3, ::2], torch.empty(0, 3), torch.tensor(3.0)],
        "parameter": torch.nn.Parameter(whole.clone()),
        "size": whole.shape,
        "device": torch.device("cuda:1"),
        "dtype": torch.float32,
        "bytes": torch.arange(4.0).untyped_storage(),
        "model": torch.nn.BatchNorm1d(2).state_dict(),
    }
    path = tmp_path / "a.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    found = read_checkpoint(path)
    for name in ("types", "views"):
        for mine, theirs in zip(found[name], content[name], strict=True):
            assert (mine.dtype, mine.stride()) == (theirs.dtype, theirs.stride())
            assert torch.equal(mine, theirs)
    assert found["views"][0].data_ptr() == found["views"][1].data_ptr()
    assert torch.equal(found["parameter"], content["parameter"])
    assert (found["size"], found["device"], found["dtype"]) == ((4, 6), "cuda:1", "torch.float32")
    assert bytes(found["bytes"].numpy()) == np.arange(4.0, dtype=np.float32).tobytes()
    assert found["model"].keys() == content["model"].keys()
    assert found["model"]["num_batches_tracked"].dtype == torch.int64


def test_only_the_keys_that_are_asked_for_are_read(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"w": torch.ones(3)}, "optimizer": torch.zeros(1000)}, path)
    content = path.read_bytes()
    middle = content.index(bytes(4000))
    path.write_bytes(content[: middle + 9] + b"\x01" + content[middle + 10 :])  # breaks its sum
    assert read_checkpoint(path, keys=("state_dict", "missing")).keys() == {"state_dict"}
