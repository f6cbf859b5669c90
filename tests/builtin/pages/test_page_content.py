"""What a page holds: whatever a text says stays a text; numbers, thinning, volumes, bundles."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import sample_pages
from markupsafe import Markup

from nnunet_builtin.pages import bundling, figures, writing
from nnunet_builtin.pages.elements import Column, Plot, Section, Table, Text, Viewer, Volume
from nnunet_builtin.pages.volumes import MOST_VOXELS, encoded
from nnunet_builtin.pages.writing import Page
from nnunet_core.errors import StorageError


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Let pages hold small programs instead of the bundles."""
    for name in (bundling.PLOTLY, bundling.NIIVUE):
        (tmp_path / name).write_text(f"// {name}\r\n1;\r2;")
    (tmp_path / bundling.LICENSES).write_text("a licence")
    monkeypatch.setattr(bundling, "BUNDLES", tmp_path)


class _Seen(HTMLParser):
    """Collects elements, attributes, and the content of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.texts = [], [], []
        self._in_script = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self._in_script = dict(attributes).get("type", "")
            self.scripts.append((self._in_script, ""))

    def handle_endtag(self, tag):
        if tag == "script":
            self._in_script = None

    def handle_data(self, data):
        if self._in_script is None:
            self.texts.append(data)
        else:
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)


def test_hostile_texts_stay_texts(stand_ins):
    hostile, harmless = (
        _Seen(sample_pages.page(text).html()) for text in (sample_pages.HOSTILE, "x")
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    for tag, attributes in hostile.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert not attributes.get("src", "data:").startswith("http")
    assert sample_pages.HOSTILE in "".join(hostile.texts)  # whole, where it is read
    assert "49" not in hostile.texts


def test_data_in_scripts_is_what_was_given(stand_ins):
    found = _Seen(sample_pages.page().html())
    figures_found = [json.loads(text) for kind, text in found.scripts if kind]
    names = [figure["data"][0]["name"] for figure in figures_found if "data" in figure]
    assert names[1] == sample_pages.HOSTILE.replace("&", "&amp;").replace("<", "&lt;")


def test_only_own_scripts_may_run_and_nothing_is_loaded(stand_ins):
    text = sample_pages.page().html()
    found = _Seen(text)
    policy = next(a["content"] for _, a in found.elements if "http-equiv" in a)
    programs = [code for kind, code in found.scripts if not kind]
    digests = [base64.b64encode(hashlib.sha256(p.encode()).digest()).decode() for p in programs]
    assert len(programs) == 3
    assert [f"'sha256-{digest}'" in policy for digest in digests] == [True] * 3
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "unsafe-inline" not in re.search("script-src[^;]*", policy)[0]
    assert "\r" not in text
    assert text.index("Content-Security-Policy") < text.index("<script")


def test_a_page_without_plots_needs_no_bundle(monkeypatch, tmp_path):
    monkeypatch.setattr(bundling, "BUNDLES", tmp_path / "none")
    Page("Words", [Section("One", [Text("x"), Table(["a"], [[1]])])]).write(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 30_000


def test_missing_bundles_are_one_message_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(bundling, "BUNDLES", tmp_path / "none")
    page = Page("Plots", [Section("One", [Plot({"data": []}, "a plot")])])
    with pytest.raises(
        StorageError, match=r"plotly\.js.*python -m nnunet_builtin\.pages\.bundling"
    ):
        page.write(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_two_viewers_are_refused():
    viewer = Viewer([sample_pages.volume()])
    with pytest.raises(ValueError, match="at most one viewer"):
        Page("Two", [Section("a", [viewer]), Section("b", [viewer])]).html()


def test_sections_of_one_title_have_links_of_their_own(stand_ins):
    text = Page("x", [Section("Ä ä", []), Section("Same", []), Section("same!", [])]).html()
    ids = re.findall(r'<section id="([^"]+)"', text)
    assert len(set(ids)) == 3
    assert all(f'href="#{name}"' in text for name in ids)


def test_numbers_of_tables():
    rows = [[0.123456, 3, None], [float("nan"), 1, "x"], [float("inf"), 2, "y"]]
    table = Table([Column("Dice", 2), "n", "word"], rows)
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["0.12", "3", "–"],
        ["–", "1", "x"],
        ["∞", "2", "y"],
    ]
    assert table.cells[1][0].value is None
    assert table.numeric == [True, True, False]


def test_texts_of_figures_are_no_tags_unless_they_are_markup():
    assert writing.plain({"a": ["<b>x</b> & y", Markup("<br>"), 3]}) == {
        "a": ["&lt;b>x&lt;/b> &amp; y", "<br>", 3]
    }


def test_thinned_curves_keep_their_peaks():
    values = np.sin(np.arange(100_000) / 7000)
    values[4321], values[77_777], values[50:90] = 9.0, -9.0, np.nan
    kept = figures.thinned(values)
    assert len(kept) <= figures.MOST_OF_CURVE
    assert {0, 4321, 77_777, 99_999} <= set(kept)
    assert kept == sorted(kept)
    assert not np.isnan(values[kept]).any()
    assert figures.thinned(values[:20]) == list(range(20))


def test_thinned_distributions_keep_ends_and_quartiles():
    values = np.random.default_rng(0).beta(8, 2, 5000)
    (trace,) = figures.distributions({"a": values.tolist()}, "Dice")["data"]
    assert len(trace["y"]) == figures.MOST_OF_DISTRIBUTION
    marks = [0, 0.25, 0.5, 0.75, 1]
    assert np.allclose(np.quantile(trace["y"], marks), np.quantile(values, marks), atol=2e-3)


def test_a_violin_is_not_drawn_of_few_values():
    found = figures.distributions(
        {"few": [0.1, 0.2, 0.3], "many": list(np.linspace(0, 1, 30))}, "y"
    )
    assert [trace["type"] for trace in found["data"]] == ["box", "violin"]


def test_infinite_distances_are_counted_above_the_others():
    values = {"misses": [np.inf, 2.0, np.nan, np.inf], "good": [4.0, 3.0, 2.0, 1.0]}
    texts = {name: [f"case_{n}" for n in range(4)] for name in values}
    found = figures.distributions(
        {**values, "none": [np.inf] * 4}, "HD95", texts | {"none": "abcd"}
    )
    marks = [trace for trace in found["data"] if trace["type"] == "scatter"]
    assert [(trace["x"], trace["text"]) for trace in marks] == [
        (["misses"], ["2 infinite"]),
        (["none"], ["4 infinite"]),
    ]
    assert marks[0]["y"][0] > 4.0
    assert marks[0]["hovertext"] == ["case_0, case_3"]
    assert found["layout"]["xaxis"]["categoryarray"] == ["misses", "good", "none"]


def _voxels(nifti):
    header = gzip.decompress(base64.b64decode(nifti))
    shape = np.frombuffer(header, "<i2", 3, 42)[::-1]
    spacing = np.frombuffer(header, "<f4", 3, 80)[::-1]
    return np.frombuffer(header[352:], np.uint8).reshape(shape), spacing


def test_a_small_volume_keeps_its_voxels():
    given = sample_pages.volume()
    found = encoded(given)
    image, spacing = _voxels(found["image"])
    assert np.array_equal(image == 255, given.image == 200)
    assert np.allclose(spacing, given.spacing)
    for name, each in zip(given.maps, found["maps"], strict=True):
        assert each["name"] == name
        assert np.array_equal(_voxels(each["nifti"])[0], given.maps[name])


def test_a_large_volume_is_cropped_to_its_labels_and_coarsened_where_it_is_fine():
    shape, spacing = (60, 400, 420), (5.0, 0.8, 0.8)
    label = np.zeros(shape, np.int32)
    label[20:40, 100:300, 90:310] = 700  # no 8 bit value
    volume = Volume("a", label * 0.5, {"reference": label}, {700: "organ"}, spacing)
    found = encoded(volume)
    image, mm = _voxels(found["image"])
    small, _ = _voxels(found["maps"][0]["nifti"])
    assert image.size <= MOST_VOXELS
    assert image.shape == small.shape
    assert mm[0] == pytest.approx(5.0)  # the coarse axis stays
    assert 0.8 < mm[1] <= 3.0
    assert set(np.unique(small)) == {0, 1}
    extent = [n * s for n, s in zip(small.shape, mm, strict=True)]
    assert extent == pytest.approx([100 + 40, 160 + 40, 176 + 40], abs=6)
    share = (label > 0).sum() * 5 * 0.64
    assert (small > 0).sum() * float(np.prod(mm)) == pytest.approx(share, rel=0.05)
    assert len(found["image"]) < 1_200_000


def test_a_slice_of_one_voxel_depth_stays():
    plane = np.zeros((1, 900, 900))
    volume = Volume("flat", plane, {"reference": plane.astype(int)}, {1: "x"}, (999.0, 0.5, 0.5))
    image, _ = _voxels(encoded(volume)["image"])
    assert image.shape[0] == 1
    assert image.size <= MOST_VOXELS
