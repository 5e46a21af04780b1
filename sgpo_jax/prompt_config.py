"""Prompt options of published models, for several commands."""

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Prompt format of a published model.

    Attributes:
      chat: as a turn of the user in the model's chat template, if it has one; else as
        plain text, which base models continue.
      system: what a turn of the system says before; if empty, what the template says.
      template: name of the chat template, for models with several.
      variables: what else the template may read, as NAME=VALUE with values in JSON or
        plain text: enable_thinking=false.
    """

    chat: bool = True
    system: str = ""
    template: str = ""
    variables: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.chat and (self.system or self.template or self.variables):
            raise ValueError(
                "plain text has no system prompt, template and variables: drop them, or"
                " prompt.no-chat"
            )
        _ = self.options

    @property
    def options(self) -> dict[str, Any]:
        """The choices as `models.load` takes them.

        >>> PromptConfig(variables=("enable_thinking=false", "tone=dry")).options
        {'chat': True, 'system': '', 'template': '',
         'variables': {'enable_thinking': False, 'tone': 'dry'}}
        """
        variables: dict[str, Any] = {}
        for text in self.variables:
            name, equals, value = text.partition("=")
            if not equals or not name.isidentifier():
                raise ValueError(f"prompt.variables must be NAME=VALUE, got {text!r}")
            try:
                variables[name] = json.loads(value)
            except ValueError:
                variables[name] = value
        return {
            "chat": self.chat,
            "system": self.system,
            "template": self.template,
            "variables": variables,
        }
