"""Label tables: what is read, and which ones no label map can follow."""

import pytest

from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError

WHOLE_AND_CORE = {"background": 0, "whole": [1, 2], "core": [2]}
IMPOSSIBLE = {
    "one value with two names": ({"background": 0, "left": 1, "right": 1, "top": 2}, None, "left"),
    "two backgrounds": ({"background": 0, "air": 0, "liver": 1}, None, "'background' and 'air'"),
    "two names for a region": ({**WHOLE_AND_CORE, "all": [2, 1]}, [1, 2, 1], "'whole' and 'all'"),
    "an order outside the labels": (WHOLE_AND_CORE, [1, 7], "'core' as 7"),
    "an order outside the region": (WHOLE_AND_CORE, [2, 1], "'core' as 1"),
    "two regions that are written alike": (WHOLE_AND_CORE, [2, 2], "'whole' and 'core'"),
    "a region that covers another": (
        {"background": 0, "core": [2], "whole": [1, 2]},
        [2, 1],
        "no 2",
    ),
    "an order of another length": (WHOLE_AND_CORE, [1], "one value per region"),
    "a region without a value": ({"background": 0, "whole": []}, [1], "at least one"),
    "a region as text": ({"background": 0, "whole": "(1, 2)"}, None, "non-negative integer"),
    "a negative value": ({"background": 0, "liver": -1}, None, "non-negative integer"),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_an_impossible_table_is_an_error_that_names_the_entry(kind):
    names, order, named = IMPOSSIBLE[kind]
    with pytest.raises(DatasetError, match=rf"table\.json: .*{named}"):
        Labels.from_names(names, order, "table.json")


def test_possible_tables_are_read_and_values_may_be_texts():
    brats = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    assert Labels.from_names(brats, [1, 2, 3]).region_order == (1, 2, 3)
    assert Labels.from_names({"background": "0", "liver": "1"}).foreground == (1,)


def test_a_table_from_json_is_checked_as_well():
    document = Labels.from_names(WHOLE_AND_CORE, [1, 2]).model_dump()
    assert Labels.model_validate(document)
    for changes in ({"region_order": (1, 1)}, {"region_order": (1, 7)}, {"foreground": (1, 1)}):
        with pytest.raises(ValueError, match=r"equal|among"):
            Labels.model_validate({**document, **changes})
