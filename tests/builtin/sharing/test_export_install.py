"""A model goes to somebody else: nothing of the cases with it, and the same predictions there."""

import io
import json
import platform
import shutil
import tarfile
import zipfile

import pytest
from commands import nnunet
from finished_run import QUICK, one_error
from safetensors.torch import load_file, save_file
from trained_model import (
    DATASET,
    PATIENTS,
    VARIANT,
    make_images,
    make_trained,
    renamed,
    repacked,
    with_digest,
)

from nnunet_builtin.sharing.export import export, export_models
from nnunet_builtin.sharing.install import install
from nnunet_builtin.sharing.manifest import Manifest, digest_of
from nnunet_builtin.sharing.scrubbing import without_paths
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FoldRecord
from nnunet_core.store.inference import InferenceDocument, member_record, open_member
from nnunet_core.store.models import WEIGHTS, Model, weights_record
from nnunet_core.store.predictions import RECORD

HOST = "ward7-scanner"


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "jane_roe"))
    monkeypatch.setattr(platform, "node", lambda: HOST)
    return make_trained(tmp_path / "jane_roe" / "ws" / "results", str(tmp_path / "jane_roe"))


@pytest.fixture
def archive(model, tmp_path):
    export(model, tmp_path / "model.zip", licence="CC BY 4.0", citation="Roe 2026")
    return tmp_path / "model.zip"


def contents(archive):
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def test_a_zip_says_nothing_of_cases_user_and_machine(model, archive, tmp_path):
    whole = archive.read_bytes()
    for secret in (*PATIENTS, "Doe", "Richard", "jane_roe", str(tmp_path), HOST, "hospital"):
        assert secret.encode() not in whole, secret
    found = contents(archive)
    assert all(b"/" + part.encode() not in b"".join(found.values()) for part in ("home", "tmp"))
    names = {name.rpartition("/")[2] for name in found}
    assert names <= {"manifest.json", "model.json", "run.json", "weights.safetensors"} | {
        path.name for path in (model.folder / "postprocessing").iterdir()
    }


def test_the_manifest_says_what_the_model_is(model, archive):
    manifest = Manifest.model_validate_json(contents(archive)["manifest.json"])
    (card,) = manifest.models
    assert (manifest.licence, manifest.citation) == ("CC BY 4.0", "Roe 2026")
    assert card.name == f"{DATASET}/{VARIANT}/3d_fullres"
    assert (card.channels, card.folds) == (("MRI",), ("0", "1"))
    assert card.labels == model.document.labels
    assert card.packages.keys() == {"nnunet-core"}
    assert card.scores.cases == 4
    assert card.scores.mean["1"]["Dice"] == pytest.approx((56 / 60 + 48 / 56) / 2)
    for name, part in contents(archive).items():
        if name != "manifest.json":
            assert manifest.files[name] == digest_of(part)


def test_spacing_and_patch_are_those_of_the_image(tmp_path):
    model = make_trained(
        tmp_path, transpose_forward=(2, 0, 1), spacing=(3.0, 1.0, 2.0), patch_size=(8, 16, 24)
    )
    (card,) = export(model, tmp_path / "a.zip").manifest.models
    # axis 2 of the image, x, is the first one of the patch
    assert (card.spacing, card.patch_size) == ((1.0, 2.0, 3.0), (16, 24, 8))


def test_the_same_model_gives_the_same_bytes(model, archive, tmp_path):
    for path in model.folder.rglob("*"):
        path.touch()
    export(model, tmp_path / "again.zip", licence="CC BY 4.0", citation="Roe 2026")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_a_model_that_was_installed_is_exported_as_it_was(archive, tmp_path):
    done = install(archive, tmp_path / "other", Registry.discover())
    export(Model.open(done.folders[-1]), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_installed_elsewhere_it_predicts_the_same(model, archive, tmp_path, monkeypatch):
    images = make_images(tmp_path / "images")
    options = ("--save-probabilities", *QUICK)
    assert nnunet("predict", model.folder, images, tmp_path / "here", *options).returncode == 0
    monkeypatch.setenv("HOME", str(tmp_path / "john"))
    moved = tmp_path / "received.zip"
    shutil.move(archive, moved)
    shutil.rmtree(tmp_path / "jane_roe")
    done = nnunet("models", "install", moved, "--workspace", tmp_path / "john")
    assert done.returncode == 0, done.stderr
    name = done.stdout.rpartition("nnunet predict ")[2].split()[0]
    there = ("--workspace", tmp_path / "john")
    assert nnunet("predict", name, images, tmp_path / "there", *options, *there).returncode == 0
    here = {p.name: p.read_bytes() for p in (tmp_path / "here").iterdir() if p.name != RECORD}
    assert len(here) == 4
    assert here == {
        p.name: p.read_bytes() for p in (tmp_path / "there").iterdir() if p.name != RECORD
    }
    listed = nnunet("models", "list", *there).stdout
    assert f"{name}  imported" in listed
    assert "broken" not in listed


def test_some_folds_only(model, tmp_path):
    export(model, tmp_path / "a.zip", ("1",))
    done = install(tmp_path / "a.zip", tmp_path / "other", Registry.discover())
    assert list(Model.open(done.folders[0]).trained()) == ["1"]
    with pytest.raises(UsageError, match="not trained"):
        export(model, tmp_path / "b.zip", ("7",))
    assert not (tmp_path / "b.zip").exists()


def test_a_cascade_takes_the_stage_before_along(tmp_path):
    make_trained(tmp_path / "results", name="3d_lowres", folds=("0",))
    last = make_trained(tmp_path / "results", name="3d_cascade_fullres", previous="3d_lowres")
    done = export(last, tmp_path / "a.zip")
    assert [card.configuration for card in done.manifest.models] == [
        "3d_lowres",
        "3d_cascade_fullres",
    ]
    found = install(tmp_path / "a.zip", tmp_path / "other", Registry.discover())
    stages = Model.open(found.folders[-1]).stages()
    assert [list(stage.trained()) for stage in stages] == [["0"], ["0", "1"]]


def test_what_was_selected_goes_as_one(tmp_path):
    results = tmp_path / "results"
    make_trained(results, name="3d_lowres", folds=("0", "1"))
    members = [
        make_trained(results, name="2d", folds=("0",)),
        make_trained(results, name="3d_cascade_fullres", previous="3d_lowres"),
    ]
    place = results / DATASET / "inference.json"
    records = tuple(
        member_record(model, folds, place.parent)
        for model, folds in zip(members, (("0",), ("0", "1")), strict=True)
    )
    document = InferenceDocument(dataset=DATASET, members=records, postprocessing=None)
    document.write(place)
    done = nnunet("models", "export", place, tmp_path / "a.zip", "--licence", "mine")
    assert done.returncode == 0, done.stderr
    command = ("models", "install", tmp_path / "a.zip", "--workspace", tmp_path / "other")
    installed = nnunet(*command)
    assert installed.returncode == 0, installed.stderr
    there = tmp_path / "other" / "results" / DATASET / "inference.json"
    assert f"nnunet predict {there} IMAGES OUTPUT" in installed.stdout
    assert InferenceDocument.read(there) == document
    for record in document.members:
        assert open_member(record, there, False).stages()
    assert len(list((tmp_path / "other").rglob("model.json"))) == 3
    assert nnunet(*command).returncode == 0
    document.model_copy(update={"members": records[:1]}).write(there)
    assert "inference.json already" in one_error(nnunet(*command))


def test_models_go_with_several_ensembles_of_them(tmp_path):
    results, other = tmp_path / "results", tmp_path / "other"
    models = [(make_trained(results, name=name, folds=("0",)), ("0",)) for name in ("2d", "3d")]
    top, selections = results / DATASET, {}
    for name, chosen in (("A--B", models), ("B--A", models[::-1])):
        place = f"ensembles/{name}/inference.json"
        records = tuple(member_record(*one, (top / place).parent) for one in chosen)
        document = InferenceDocument(dataset=DATASET, members=records, postprocessing=None)
        selections[place] = (top / place, document)  # of a file that does not exist
    export_models(models, selections, tmp_path / "a.zip")
    done = install(tmp_path / "a.zip", other, Registry.discover())
    assert done.selections == tuple(other / DATASET / place for place in selections)
    for place, (_, document) in zip(done.selections, selections.values(), strict=True):
        assert InferenceDocument.read(place) == document
        for record in document.members:
            assert open_member(record, place, False).folder.is_relative_to(other)
    install(tmp_path / "a.zip", other, Registry.discover())  # the same again
    done.selections[0].write_text(done.selections[1].read_text())
    with pytest.raises(StorageError, match="--overwrite"):
        install(tmp_path / "a.zip", other, Registry.discover())


def test_a_model_is_never_replaced_silently(model, archive, tmp_path):
    results, registry = tmp_path / "other", Registry.discover()
    (folder,) = install(archive, results, registry).folders
    (folder / "mine.txt").write_text("kept where nothing changes")
    install(archive, results, registry)  # the same model
    assert (folder / "mine.txt").is_file()
    export(model, tmp_path / "b.zip", ("0",))
    before = sorted(p for p in results.rglob("*"))
    with pytest.raises(StorageError, match="--overwrite"):
        install(tmp_path / "b.zip", results, registry)
    assert sorted(p for p in results.rglob("*")) == before
    install(tmp_path / "b.zip", results, registry, overwrite=True)
    assert list(Model.open(folder).trained()) == ["0"]
    assert not (folder / "mine.txt").exists()


def test_a_tar_of_the_content_is_installed_too(archive, tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        for name, part in contents(archive).items():
            info = tarfile.TarInfo(f"model/{name}")
            info.size = len(part)
            file.addfile(info, io.BytesIO(part))
    install(tmp_path / "a.tar.gz", tmp_path / "other", Registry.discover())


def test_the_digest_is_compared_before_anything_is_unpacked(archive, tmp_path):
    digest = digest_of(archive).digest
    where = ("--workspace", tmp_path / "other")
    wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    message = one_error(nnunet("models", "install", archive, "--digest", wrong, *where))
    assert wrong in message
    assert not (tmp_path / "other").exists()
    one_error(nnunet("models", "install", archive, "--digest", "md5:1", *where), 2)
    for given in (digest, digest.removeprefix("sha256:").upper()):
        assert nnunet("models", "install", archive, "--digest", given, *where).returncode == 0


def test_a_missing_plugin_names_the_package_and_the_version(archive, tmp_path):
    def change(content):
        renamed(
            content, "network", reference="fancy/net", distribution="nnunet-fancy", version="2.1"
        )
        with_digest(content)

    needing = repacked(archive, tmp_path / "b.zip", change)
    done = nnunet("models", "install", needing, "--workspace", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert "pip install 'nnunet-fancy==2.1'" in done.stderr
    name = f"{DATASET}/{VARIANT}/3d_fullres"
    paths = (make_images(tmp_path / "images"), tmp_path / "out")
    refused = nnunet("predict", name, *paths, "--workspace", tmp_path / "other", *QUICK)
    assert "pip install 'nnunet-fancy==2.1'" in one_error(refused)
    assert not (tmp_path / "out").exists()


def test_received_code_is_shown_and_not_run(archive, tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    code = tmp_path / "code"
    code.mkdir()
    (code / "received_code.py").write_text(f"open({str(canary)!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(code)

    def change(content):
        reference = {"reference": "received_code:Net", "distribution": None, "version": None}
        renamed(content, "network", **reference)
        with_digest(content)

    needing = repacked(archive, tmp_path / "b.zip", change)
    done = nnunet("models", "install", needing, "--workspace", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert "received_code:Net" in done.stderr
    name = f"{DATASET}/{VARIANT}/3d_fullres"
    paths = (make_images(tmp_path / "images"), tmp_path / "out")
    refused = nnunet("predict", name, *paths, "--workspace", tmp_path / "other", *QUICK)
    assert "--trust" in one_error(refused)
    assert not canary.exists()


def with_extra(model, extra):
    """Return a model whose planner said more, with folds that were trained so."""
    document = model.document.model_dump(mode="json")
    document["configuration"]["extra"] = extra
    (model.folder / "model.json").write_text(json.dumps(document))
    changed = Model.open(model.folder)
    for path in model.folder.glob("fold_*/run.json"):
        record = json.loads(path.read_text())
        record["model_digest"] = changed.document.digest()
        path.write_text(json.dumps(record))
    return changed


def test_settings_lose_their_paths_and_keep_the_rest(model, tmp_path):
    extra = {"atlas": "/home/jane_roe/atlas.nii.gz", "ratio": "a/b"}
    export(with_extra(model, extra), tmp_path / "a.zip")
    (folder,) = install(tmp_path / "a.zip", tmp_path / "other", Registry.discover()).folders
    extra = Model.open(folder).document.configuration.extra
    assert extra == {"atlas": "atlas.nii.gz", "ratio": "a/b"}


def test_a_case_named_in_a_setting_stops_the_export(model, tmp_path):
    changed = with_extra(model, {"worst": f"as in {PATIENTS[1]}!"})
    with pytest.raises(StorageError, match=r"configuration\.extra\.worst"):
        export(changed, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_weights_that_say_more_than_numbers_stop_the_export(model, tmp_path):
    path = model.folder / "fold_0" / WEIGHTS
    save_file(load_file(path), path, {"made": f"on {HOST}"})
    record = FoldRecord.read(model.folder / "fold_0" / "run.json")
    changed = record.model_copy(update={"weights": weights_record(path.parent)})
    changed.write(model.folder / "fold_0" / "run.json")
    with pytest.raises(StorageError, match="made"):
        export(model, tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/ann/x.json", "x.json"),
        ("/home/Ann Doe/my file.json", "my file.json"),
        ("C:\\Users\\Ann\\x.json", "x.json"),
        ("\\\\server\\share\\x.json", "x.json"),
        ("~/x.json", "x.json"),
        ("file:///home/ann/x.json", "x.json"),
        ("read from /home/ann/x.json, then", "read from x.json, then"),
        ("builtin/v21", "builtin/v21"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("1/2", "1/2"),
        ("mm/s", "mm/s"),
        ("package.module:Attribute", "package.module:Attribute"),
        ("/", "/"),
    ],
)
def test_paths_in_texts_lose_their_folders(text, left):
    assert without_paths(text) == left
    assert without_paths({text: [text, 1]}) == {left: [left, 1]}


def test_the_command_exports_texts_of_files(model, tmp_path):
    (tmp_path / "LICENCE").write_text("as\nit is")
    target = tmp_path / "a.zip"
    done = nnunet("models", "export", model.folder, target, "--licence", tmp_path / "LICENCE")
    assert done.returncode == 0, done.stderr
    assert json.loads(contents(target)["manifest.json"])["licence"] == "as\nit is"
    assert digest_of(target).digest in done.stdout
    one_error(nnunet("models", "export", model.folder, target))
    one_error(nnunet("models", "export", model.folder, tmp_path / "a.tar"), 2)
    done = nnunet("models", "export", model.folder, target, "--overwrite")
    assert "--licence" in done.stderr


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["v1/Task004_Hippocampus_v1", "v2/Dataset004_Hippocampus_plain_2d"]
)
def test_models_of_others_are_sent_to_import(models, tmp_path, name):
    source = models / f"{name}.zip"
    message = one_error(nnunet("models", "install", source, "--workspace", tmp_path), 2)
    assert f"nnunet models import {source}" in message


def test_models_show_says_what_an_installed_model_came_with(archive, tmp_path):
    results = tmp_path / "ws" / "results"
    install(archive, results, Registry.discover())
    name = f"{DATASET}/{VARIANT}/3d_fullres"
    command = ("models", "show", name, "--workspace", tmp_path / "ws")
    (card,) = Manifest.read(results / name / "manifest.json").models
    row = json.loads(nnunet(*command, "--json").stdout)
    assert (row["licence"], row["citation"]) == ("CC BY 4.0", "Roe 2026")
    assert row["scores"] == card.scores.model_dump()
    assert (row["spacing"], row["patch_size"]) == (list(card.spacing), list(card.patch_size))
    shown = nnunet(*command).stdout
    dice = card.scores.mean["1"]["Dice"]
    for words in ("CC BY 4.0", "Roe 2026", f"{dice:.4f}", " mm (z, y, x)", " voxels (z, y, x)"):
        assert words in shown
    (results / name / "manifest.json").write_text("{")
    assert "broken: manifest.json" in nnunet(*command).stdout


def test_import_of_our_own_model_names_what_takes_it(model, archive, tmp_path):
    command = ("models", "import", archive, "--workspace", tmp_path / "ws")
    assert f"Run: nnunet models install {archive}" in one_error(nnunet(*command), 2)
    command = ("models", "import", model.folder, "--workspace", tmp_path / "ws")
    assert "needs no import: nnunet predict" in one_error(nnunet(*command), 2)
