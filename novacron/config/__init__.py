"""Configuration: its schema, where values come from, and what is wrong with them.

:func:`load` puts the layers together; :class:`Configuration` is the component that stands for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novacron.config.loaded import LoadedConfiguration
from novacron.config.loading import data_directory_for, load, restore
from novacron.config.provenance import Override, Source

if TYPE_CHECKING:
    from novacron.config.component import Change, Configuration
    from novacron.config.errors import ConfigInvalidError, ConfigUnreadableError, Problem
    from novacron.config.explain import Explanation

__all__ = [
    "Change",
    "ConfigInvalidError",
    "ConfigUnreadableError",
    "Configuration",
    "Explanation",
    "LoadedConfiguration",
    "Override",
    "Problem",
    "Source",
    "data_directory_for",
    "load",
    "restore",
]

_LAZY = {
    "Change": "component",
    "Configuration": "component",
    "ConfigInvalidError": "errors",
    "ConfigUnreadableError": "errors",
    "Problem": "errors",
    "Explanation": "explain",
}
"""Not needed to load defaults, so not imported for it."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
