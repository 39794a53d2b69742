"""Replies that are data: asked for by a JSON schema, checked against it, and asked for again.

A model that can is held to the schema while it writes (``response_format``); every reply is
searched for JSON (:mod:`sharpen.core.lm.repair`) and checked all the same. One that does not fit is
shown to the model with what is wrong, a bounded number of times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.lm.errors import ReplyError
from sharpen.core.lm.messages import ChatRequest, ChatResponse
from sharpen.core.lm.repair import find_json

__all__ = ["Schema", "ask"]

_SHOWN_CHARS = 4000  # of a wrong reply, to the model that wrote it


class Schema:
    """A JSON schema (draft 2020-12) that replies must fit.

    Args:
        schema: as plain data; references lead inside of it only.

    Raises:
        ConfigError: it is no schema.
        DependencyNotInstalled: ``jsonschema`` is not installed.

    Examples:
        >>> schema = Schema({"type": "object", "properties": {"score": {"maximum": 5}}})
        >>> schema.wrong({"score": 7})
        'score: 7 is greater than the maximum of 5'
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            import jsonschema
            import referencing
        except ModuleNotFoundError as error:
            raise DependencyNotInstalled.for_feature("a reply by a schema", "lm") from error
        self.data = json.loads(json.dumps(schema))
        try:
            jsonschema.Draft202012Validator.check_schema(self.data)
        except jsonschema.SchemaError as error:
            raise ConfigError(f"the schema is wrong: {error.message:.300}") from None
        # An empty registry: nothing is fetched from elsewhere.
        self._validator = jsonschema.Draft202012Validator(
            self.data, registry=referencing.Registry()
        )
        self._best = jsonschema.exceptions.best_match
        self._unknown = referencing.exceptions.Unresolvable

    @property
    def properties(self) -> Mapping[str, Any]:
        """Of the object, where it is one."""
        found = self.data.get("properties", {})
        return found if isinstance(found, Mapping) else {}

    def wrong(self, value: Any) -> str | None:
        """What is wrong with a value, or None.

        Raises:
            ConfigError: the schema refers to what it does not hold.
        """
        try:
            error = self._best(self._validator.iter_errors(value))
        except self._unknown as unknown:
            raise ConfigError(f"the schema has a reference that leads nowhere: {unknown}") from None
        if error is None:
            return None
        where = ".".join(str(part) for part in error.absolute_path)
        return f"{where}: {error.message:.300}" if where else f"{error.message:.300}"

    def parse(self, response: ChatResponse) -> Any:
        """The value in a reply.

        Raises:
            ReplyError: there is none that fits, or the reply was cut off.
        """
        if response.finish_reasons and response.finish_reasons[0] == "length":
            raise ReplyError(
                f"the reply was cut off at max_tokens; raise it. It was: {response.text!r:.300}",
                response.text,
            )
        return find_json(response.text, self.wrong, properties=self.properties)

    def format(self) -> dict[str, Any]:
        """The ``response_format`` of a request."""
        return {"type": "json_schema", "json_schema": {"name": "reply", "schema": self.data}}


def ask(
    complete: Callable[[ChatRequest], ChatResponse],
    request: ChatRequest,
    schema: Schema,
    *,
    retries: int = 2,
    enforce: bool = True,
) -> Any:
    """A reply that fits a schema.

    Args:
        complete: asks the model.
        request: its messages should say what is wanted.
        schema: what must come.
        retries: how often a wrong reply is asked for again, with what is wrong.
        enforce: send the schema as ``response_format``.

    Raises:
        ReplyError: no reply fits; of the last.
    """
    if enforce and request.response_format is None:
        request = replace(request, response_format=schema.format())
    for left in range(retries, -1, -1):
        response = complete(request)
        try:
            return schema.parse(response)
        except ReplyError as error:
            if left == 0:
                raise
            told = (
                f"{str(error).split('. It was: ')[0]}. Reply again with nothing but one JSON value "
                f"that fits this schema:\n{json.dumps(schema.data)}"
            )
            again = [
                {"role": "assistant", "content": response.text[:_SHOWN_CHARS] or "(nothing)"},
                {"role": "user", "content": told},
            ]
            request = replace(request, messages=[*request.messages, *again])
    raise AssertionError
