"""Typed settings: what users set is checked against the constructor."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_builtin.training.settings import TrainerSettings
from nnunet_cli.options import parse_assignments
from nnunet_core import Component
from nnunet_core.errors import PluginError, SettingsError
from nnunet_core.registry.discovery import Resolved
from nnunet_core.registry.settings import build, full_settings
from nnunet_core.runtime.files import digest


class Example:
    def __init__(
        self,
        count: int = 1,
        share: float = 0.5,
        axes: tuple[int, ...] = (0, 1),
        name: str | None = None,
        on: bool = False,
    ) -> None:
        self.count, self.share, self.axes, self.name, self.on = count, share, axes, name, on


class NoDefault:
    def __init__(self, count: int) -> None:
        self.count = count


class Plain:
    pass


@dataclass
class Record:
    count: int = 1
    names: list[str] = field(default_factory=lambda: ["a"])


def resolved(target=Example, **settings):
    return Resolved(
        "loss",
        "test/example",
        Component("example", f"{__name__}:{target.__name__}", settings=settings),
    )


def test_assignments_are_json_or_text_and_may_be_nested():
    parsed = parse_assignments(
        ["loss.count=3", "loss.name=abc", "loss.axes=[1,2]", "preprocessor.normalization.0=CT"]
    )
    assert parsed == {
        "loss": {"count": 3, "name": "abc", "axes": [1, 2]},
        "preprocessor": {"normalization": {"0": "CT"}},
    }


@dataclass
class Extended(TrainerSettings):
    """Types of the class that it extends are names of another module."""

    extra: int = 3


def test_a_dataclass_may_extend_one_of_another_module():
    assert full_settings(resolved(Extended, epochs=5))["epochs"] == 5
    assert build(resolved(Extended, extra=4)).extra == 4


class OwnDefault(TrainerSettings):
    def __init__(self, optimizer_settings: dict | None = None) -> None:
        super().__init__(optimizer_settings=optimizer_settings or {})


def test_an_own_constructor_has_its_own_defaults():
    assert full_settings(resolved(OwnDefault)) == {"optimizer_settings": None}


def test_a_dataclass_may_make_its_defaults():
    assert full_settings(resolved(Record)) == {"count": 1, "names": ["a"]}
    first, second = build(resolved(Record)), build(resolved(Record, names=["b"]))
    assert (first.names, second.names) == (["a"], ["b"])


@pytest.mark.parametrize("text", ["loss", "loss=3", "loss.=3", "los.count=3", "=3"])
def test_malformed_assignments_are_refused(text):
    with pytest.raises(SettingsError, match="--set"):
        parse_assignments([text])


def test_values_are_typed_and_defaults_are_reported():
    built = build(resolved(count=3, axes=[2], share=1))
    assert (built.count, built.axes, built.share, built.name) == (3, (2,), 1.0, None)
    assert full_settings(resolved(count=3)) == {
        "count": 3,
        "share": 0.5,
        "axes": [0, 1],
        "name": None,
        "on": False,
    }


class WholeDefaults:
    def __init__(
        self, memory: float = 8, sizes: tuple[float, ...] = (1, 2), other: Any = 1
    ) -> None:
        self.memory, self.sizes, self.other = memory, sizes, other


def test_a_default_that_is_set_by_hand_is_the_default():
    """`--set planner.gpu_memory_gb=8` is the method without it: equal records, equal digests."""
    for text in ("8", "8.0"):
        set_by_hand = resolved(WholeDefaults, memory=json.loads(text), sizes=[1.0, 2])
        assert digest(full_settings(set_by_hand)) == digest(full_settings(resolved(WholeDefaults)))
    assert full_settings(resolved(WholeDefaults, other=True))["other"] is True


@pytest.mark.parametrize(
    "wrong", [{"count": "3"}, {"count": 1.5}, {"count": True}, {"axes": 1}, {"on": 1}, {"name": 3}]
)
def test_a_wrong_type_names_the_setting_its_default_and_where_all_are_shown(wrong):
    name = next(iter(wrong))
    with pytest.raises(SettingsError, match=rf"loss\.{name} .*Default: .*plugins show test/"):
        build(resolved(**wrong))


def test_an_unknown_setting_suggests_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'count'"):
        build(resolved(coumt=3))


def test_a_constructor_without_defaults_is_the_plugins_fault():
    with pytest.raises(PluginError, match="default"):
        build(resolved(NoDefault))


def test_a_class_without_settings_takes_none():
    assert isinstance(build(resolved(Plain)), Plain)
    with pytest.raises(SettingsError, match="Settings: none"):
        build(resolved(Plain, count=1))


@given(
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 9)),
)
def test_settings_survive_the_command_line(count, share, axes):
    texts = [
        f"loss.{name}={json.dumps(value)}"
        for name, value in (("count", count), ("share", share), ("axes", axes))
    ]
    built = build(resolved(**parse_assignments(texts)["loss"]))
    assert (built.count, built.share, built.axes) == (count, share, tuple(axes))
