"""A newer template comes into a package, and nothing that its author wrote is lost."""

import json

import commands
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.authoring import packages
from nnunet_builtin.authoring.answers import FILE, Answers
from nnunet_builtin.authoring.merging import BETWEEN, MINE, THEIRS, merged
from nnunet_builtin.authoring.packages import make
from nnunet_builtin.authoring.rendering import rendered

LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n", "e\n"]), max_size=8).map("".join)


@pytest.fixture
def package(tmp_path):
    """Return the folder of a package with a loss."""
    make(tmp_path / "own-loss", Answers(name="own-loss", kinds=("loss",)))
    return tmp_path / "own-loss"


@pytest.fixture
def newer(monkeypatch):
    """Return a function that changes what the template makes: {path: function of a text}."""

    def change(changes, without=()):
        def render(answers):
            texts = {p: t for p, t in rendered(answers).items() if p not in without}
            return {**texts, **{p: make(texts.get(p, "")) for p, make in changes.items()}}

        monkeypatch.setattr(packages, "rendered", render)

    return change


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def contents(folder):
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


def states(done):
    rows = (line.split() for line in done.stdout.splitlines() if line.startswith("  "))
    return {words[1].rpartition("own-loss/")[2]: words[0] for words in rows}


def test_without_a_newer_template_nothing_changes(package):
    edit(package / "src/own_loss/loss.py", "= 0.1", "= 0.2")
    before = contents(package)
    done = commands.nnunet("plugins", "upgrade", package)
    assert done.returncode == 0
    assert "is as the template of nnunet-core" in done.stdout
    assert contents(package) == before


def test_what_the_author_edited_stays_and_what_is_new_comes(package, newer):
    loss, readme = package / "src/own_loss/loss.py", package / "README.md"
    edit(loss, "= 0.1", "= 0.2")
    edit(readme, "# own-loss", "# My loss")
    (package / "CONTRACT.md").unlink()
    (package / "src/own_loss/more.py").write_text("MINE = 1\n")
    newer(
        {
            "README.md": lambda text: text.replace("## Publish", "## Publishing"),
            "pyproject.toml": lambda text: text.replace("<0.3", "<0.4"),
            "CONTRACT.md": lambda text: f"{text}\nnew\n",
            "tests/conftest.py": lambda _: "new = 1\n",
        },
        without=(".gitignore", ".github/workflows/ci.yml"),
    )
    edit(package / ".gitignore", "build/", "build/\nmine/")
    done = commands.nnunet("plugins", "upgrade", package)
    assert done.returncode == 0, done.stderr
    assert states(done) == {
        "README.md": "merged",
        "pyproject.toml": "updated",
        "CONTRACT.md": "kept",
        "tests/conftest.py": "added",
        ".gitignore": "kept",
        ".github/workflows/ci.yml": "removed",
    }
    assert "= 0.2" in loss.read_text()
    assert readme.read_text().startswith("# My loss\n")
    assert "## Publishing" in readme.read_text()
    assert "<0.4" in (package / "pyproject.toml").read_text()
    assert not (package / "CONTRACT.md").exists()
    assert (package / "tests/conftest.py").read_text() == "new = 1\n"
    assert "mine/" in (package / ".gitignore").read_text()
    assert (package / "src/own_loss/more.py").exists()
    again = commands.nnunet("plugins", "upgrade", package)
    assert "is as the template" in again.stdout


def test_lines_that_both_changed_stand_between_marks(package, newer):
    loss = package / "src/own_loss/loss.py"
    edit(loss, "le=1)] = 0.1", "le=1)] = 0.2")
    newer({"src/own_loss/loss.py": lambda text: text.replace("le=1)] = 0.1", "le=1)] = 0.3")})
    seen = commands.nnunet("plugins", "upgrade", package, "--dry-run")
    assert MINE not in loss.read_text(), "it was a dry run"
    assert seen.returncode == 1
    done = commands.nnunet("plugins", "upgrade", package)
    assert done.returncode == 1
    assert "src/own_loss/loss.py have lines that both you and the template changed" in done.stderr
    head, _, rest = loss.read_text().partition(MINE)
    mine, _, rest = rest.partition(BETWEEN)
    assert ("= 0.2" in mine, "= 0.3" in rest.partition(THEIRS)[0]) == (True, True)
    assert head.startswith('"""Cross entropy')

    newer({"src/own_loss/loss.py": lambda text: text.replace("le=1)] = 0.1", "le=1)] = 0.4")})
    before = contents(package)
    refused = commands.nnunet("plugins", "upgrade", package)
    assert refused.returncode == 2
    assert "marks of an earlier upgrade" in refused.stderr
    assert contents(package) == before


def test_another_kind_can_be_added(package):
    edit(package / "src/own_loss/plugin.py", '"own-loss",\n', '"my-name",\n')
    done = commands.nnunet("plugins", "upgrade", package, "--kind", "network")
    assert done.returncode == 0, done.stderr
    plugin = (package / "src/own_loss/plugin.py").read_text()
    assert '"my-name",\n' in plugin
    assert "def nnunet_networks" in plugin
    assert (package / "src/own_loss/network.py").is_file()
    assert json.loads((package / FILE).read_text())["answers"]["kinds"] == ["network", "loss"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: (p / FILE).unlink(), "did not make it"),
        (lambda p: edit(p / FILE, '"own-loss"', '"../own"'), "which is no name"),
        (lambda p: edit(p / FILE, '"loss"', '"los"'), "Did you mean 'loss'?"),
        (lambda p: edit(p / FILE, '"nnunet_core": "', '"nnunet_core": "9'), "pip install --upg"),
        (lambda p: edit(p / FILE, '"nnunet_core": "', '"nnunet_core": "x'), "Invalid version"),
        (lambda p: edit(p / FILE, '"README.md":', '"../README.md":'), "may lie elsewhere"),
        (lambda p: (p / FILE).write_text("{"), "not readable JSON"),
        (lambda p: (p / "README.md").write_bytes(b"\xff\xfe\xff"), "cannot be read as text"),
    ],
)
def test_a_damaged_package_is_refused_and_left_alone(package, newer, change, told):
    newer({"pyproject.toml": lambda text: f"{text}\n", "README.md": lambda text: f"{text}\n"})
    change(package)
    before = {path: path.read_bytes() for path in package.parent.rglob("*") if path.is_file()}
    done = commands.nnunet("plugins", "upgrade", package)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    after = {path: path.read_bytes() for path in package.parent.rglob("*") if path.is_file()}
    assert after == before


def test_a_folder_that_is_not_there(tmp_path):
    done = commands.nnunet("plugins", "upgrade", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "does not exist" in done.stderr


@settings(max_examples=200, deadline=None)
@given(base=LINES, mine=LINES, theirs=LINES)
def test_a_merge_keeps_every_change(base, mine, theirs):
    assert merged(base, mine, base) == (mine, 0)
    assert merged(base, base, theirs) == (theirs, 0)
    assert merged(base, mine, mine) == (mine, 0)
    text, conflicts = merged(base, mine, theirs)
    assert text.count(MINE) == text.count(THEIRS) == conflicts
    for line in set(mine.splitlines()) - set(base.splitlines()):
        assert line in text.splitlines()
    for line in set(theirs.splitlines()) - set(base.splitlines()):
        assert line in text.splitlines()


def test_a_merge_of_changes_apart_is_both():
    base = "".join(f"{number}\n" for number in range(9))
    mine, theirs = base.replace("1\n", "one\n"), base.replace("7\n", "seven\n8a\n")
    assert merged(base, mine, theirs) == (mine.replace("7\n", "seven\n8a\n"), 0)
    no_end = merged("a\nb", "a\nc", "a\nd")
    assert no_end == (f"a\n{MINE}c\n{BETWEEN}d\n{THEIRS}", 1)
