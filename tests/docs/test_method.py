"""The specification of the method: every citation of it in the code names a page and a section that
exist.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
METHOD = ROOT / "docs" / "reference" / "method"
PAGES = {
    path.stem.replace("-", " "): path for path in METHOD.glob("*.md") if path.name != "index.md"
}
NAMES = "|".join(sorted(PAGES, key=len, reverse=True))

#: Up to the end of the sentence or of the parentheses; within these, and after a comma, it may
#: go on in the next line.
CITATION = re.compile(
    r"\b[Ss]pec: (?P<text>(?<=\(spec: )[a-z][^).]*|[a-z][^).\n]*(?:,\n +[^).\n]+)?)"
)
SECTION = re.compile(r"^## (\d+)\. \S", re.MULTILINE)
RANGE = re.compile(r"(\d+)(?: to |-)(\d+)")


def cited(text):
    """Return [(page, sections)] of a citation such as `training, sections 2 and 5; inference,
    section 4`.

    Also understood: `training 6, inference 6`, `training, inference`, `sections 4 to 6`, `2-3`.
    What comes before the first page is looked up as a page, too, so that an unknown page is found.
    """
    parts = re.split(rf"(?:^|[,;] *)(?=(?:{NAMES})\b)", " ".join(text.split()))
    found = []
    for part in filter(None, parts):
        page = re.match(rf"(?:{NAMES})\b|[a-z ]+", part)
        name = page[0].strip() if page else part
        numbers = RANGE.sub(
            lambda ends: " ".join(map(str, range(int(ends[1]), int(ends[2]) + 1))), part
        )
        found.append(
            (name, [int(number) for number in re.findall(r"\d+", numbers.partition("step")[0])])
        )
    return found


def citations():
    """Yield (place, page, section) of every citation; section None is the whole page."""
    for folder in ("nnunet_core", "nnunet_cli", "plugins", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path == Path(__file__):
                continue
            for match in CITATION.finditer(path.read_text()):
                for page, sections in cited(match["text"]):
                    for section in sections or [None]:
                        yield f"{path.relative_to(ROOT)}: {match[0].strip()}", page, section


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("training, section 4", [("training", [4])]),
        ("training 6, inference 6", [("training", [6]), ("inference", [6])]),
        ("training, sections 4 to 6", [("training", [4, 5, 6])]),
        ("planning, sections 1 and 11", [("planning", [1, 11])]),
        ("postprocessing and selection, 2-3", [("postprocessing and selection", [2, 3])]),
        ("training, inference", [("training", []), ("inference", [])]),
        ("preprocessing; inference, section 4", [("preprocessing", []), ("inference", [4])]),
        ("inference,\n    section 2, step 6", [("inference", [2])]),
        ("selection, section 5", [("selection", [5])]),
    ],
)
def test_every_form_of_a_citation_is_understood(text, found):
    assert cited(text) == found


def test_every_citation_names_a_page_and_a_section():
    sections = {
        page: {int(number) for number in SECTION.findall(path.read_text())}
        for page, path in PAGES.items()
    }
    found = list(citations())
    assert len(found) > 60
    wrong = [
        place
        for place, page, section in found
        if page not in PAGES or (section and section not in sections[page])
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_sections_are_numbered_in_order(page):
    numbers = [int(number) for number in SECTION.findall(PAGES[page].read_text())]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers or page == "quirks"


def test_the_index_lists_every_page():
    index = (METHOD / "index.md").read_text()
    assert [page for page, path in PAGES.items() if f"]({path.name})" not in index] == []
