"""Checks of a plugin as a whole."""

from __future__ import annotations

from nnunet_core.testing.check import Subject, check, require


@check("plugin")
def plugin_is_active(subject: Subject) -> None:
    """The plugin loads: its hook module can be imported, its hooks exist and return records, and no
    other distribution claims its name.
    """
    (info,) = [each for each in subject.registry.plugins() if each.name == subject.reference]
    require(info.status != "blocked", "It is blocked: remove it from --no-plugin and the like.")
    require(info.status == "active", info.error)
