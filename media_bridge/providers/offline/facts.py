"""What a scripted conversation knows: the slots' values and the last tool's result, and texts made with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from media_bridge.providers.offline.scenario import Digits, Scenario
from media_bridge.providers.offline.scenario_checks import PLACEHOLDER, RESULT
from stayline.models import ToolMessage


class Facts:
    """Values by placeholder. Which are known where is checked when the scenario is loaded."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.slots: dict[str, Any] = {}
        self.result: dict[str, Any] = {}

    def tool_answered(self, message: ToolMessage) -> None:
        """Take the fields of a tool's result, or its error."""
        self.result = {"error": message.content} if message.is_error else _fields(message.content)

    def fit(self, where: Mapping[str, Any]) -> bool:
        """Whether the result has these values, compared as they are said."""
        return all(_said(self.result.get(field)) == _said(value) for field, value in where.items())

    def fill(self, text: str) -> str:
        """A text with its placeholders as they are said."""
        return PLACEHOLDER.sub(lambda found: self._spoken(found.group(1)), text)

    def arguments(self, templates: Mapping[str, Any]) -> dict[str, Any]:
        """A tool's arguments: a placeholder alone keeps its value's type."""
        return {name: self._argument(value) for name, value in templates.items()}

    def _value(self, placeholder: str) -> Any:
        if placeholder.startswith(RESULT):
            return self.result.get(placeholder.removeprefix(RESULT))
        return self.slots.get(placeholder)

    def _spoken(self, placeholder: str) -> str:
        said = _said(self._value(placeholder))
        digits = isinstance(self._scenario.slots.get(placeholder), Digits)
        return " ".join(said) if digits else said  # digit by digit

    def _argument(self, template: Any) -> Any:
        if not isinstance(template, str):
            return template
        whole = PLACEHOLDER.fullmatch(template)
        if whole:
            return self._value(whole.group(1))
        return PLACEHOLDER.sub(lambda found: _said(self._value(found.group(1))), template)


def _fields(content: str) -> dict[str, Any]:
    """A tool's result as fields; one that is no object has none."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
