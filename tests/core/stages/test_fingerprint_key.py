"""When a stored fingerprint is used again: as long as the code that made it is the same, wherever
it was inherited.
"""

import importlib
import os
import sys

import pytest

from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.provenance import code_identity
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.method import choose
from nnunet_core.stages.plan import make_fingerprint
from nnunet_core.store.workspace import Workspace

INHERITING = """
from dataclasses import dataclass

from nnunet_builtin.planning.planner import PlannerV21


class Planner(PlannerV21):
    pass
"""

OWN = INHERITING.replace(
    "    pass",
    """    def fingerprint(self, dataset, workers, progress=None):
        found = super().fingerprint(dataset, workers, progress)
        return found.model_copy(update={"channels": ("FIRST",)})""",
)


@pytest.fixture
def planner(tmp_path, monkeypatch):
    """Return a function that writes the module `local_planner` and returns a reference to its
    planner.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(code):
        (tmp_path / "local_planner.py").write_text(code)
        sys.modules.pop("local_planner", None)
        importlib.invalidate_caches()
        return "local_planner:Planner"

    yield write
    sys.modules.pop("local_planner", None)


def fingerprint(tiny, reference):
    """Return the fingerprint by a planner, and the number of files that are stored now."""
    registry, workspace = Registry.discover(), Workspace.find(tiny.parents[1])
    dataset = open_dataset(str(tiny), workspace.raw, registry, workspace.preprocessed)
    method = choose(registry, "default", {"planner": reference}, {})
    with Workers(1, None, Silence()) as workers:
        found = make_fingerprint(dataset, method, workspace, workers, Silence())
    return found, len(list(workspace.preprocessed.glob("*/fingerprints/*.json")))


def test_planners_that_inherit_the_code_share_its_result(tiny, planner):
    assert fingerprint(tiny, "v21")[1] == 1
    assert fingerprint(tiny, "v21_16GB")[1] == 1
    assert fingerprint(tiny, planner(INHERITING))[1] == 1


def test_an_edited_fingerprint_is_computed_anew(tiny, planner):
    first, stored = fingerprint(tiny, planner(OWN))
    assert (first.channels, stored) == (("FIRST",), 1)
    assert fingerprint(tiny, planner(OWN))[1] == 1
    second, stored = fingerprint(tiny, planner(OWN.replace("FIRST", "SECOND")))
    assert (second.channels, stored) == (("SECOND",), 2)


def test_code_is_identified_where_it_is_defined(planner):
    module = importlib.import_module(planner(INHERITING).partition(":")[0])
    builtin = importlib.import_module("nnunet_builtin.planning.planner").PlannerV21
    assert code_identity(module.Planner.fingerprint) == code_identity(builtin.fingerprint)
    name, version, digest = code_identity(os.path.join)
    assert (name, version) == ("posixpath.join", None)
    assert digest
