"""Templates: ``{{name}}`` is replaced by a value; nothing else is looked at.

Braces, percent signs and backslashes of values and templates stay as they are, and a value that
holds ``{{name}}`` itself is not replaced again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.text.listing import shown

__all__ = ["fields_of", "render"]

_FIELD = re.compile(r"\{\{\s*([A-Za-z_][\w.]*)\s*\}\}")


def fields_of(template: str) -> list[str]:
    """Names in a template, each once, in order."""
    return list(dict.fromkeys(_FIELD.findall(template)))


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template with its fields replaced.

    Raises:
        ConfigError: a field has no value.

    Examples:
        >>> render("Q: {{question}} {literal}", {"question": "2 + 2?"})
        'Q: 2 + 2? {literal}'
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise ConfigError(
                f"the template has the field '{name}', which has no value."
                f"{did_you_mean(name, values)} There are: {', '.join(map(str, values)) or 'none'}."
            )
        return shown(values[name])

    return _FIELD.sub(value, template)
