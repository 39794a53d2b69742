"""``local:NAME`` for :class:`sharpen.LM`: a model in this process, with the server's parameters.

Requests are read by the server's own form, so that what ``sharpen serve`` takes is taken here:
``top_k``, penalties, ``guided_regex`` and the like stand in ``extra``, and a ``response_format``
holds the reply to its schema while it is written. Requests of several threads run as one batch.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sharpen.core.assets import list_assets
from sharpen.core.config import digest
from sharpen.core.errors import ConfigError
from sharpen.core.lm.answers import ask_body
from sharpen.core.lm.errors import RequestError
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine, Usage
from sharpen.models.load import resolve_model
from sharpen.serve.api.errors import ApiError
from sharpen.serve.api.forms import ChatForm
from sharpen.serve.api.schemas import ChatRequest as Body
from sharpen.serve.api.schemas import plain_messages
from sharpen.serve.llm import LLM, Completion
from sharpen.serve.request import Piece
from sharpen.serve.sampling import SamplingParams

__all__ = ["LocalEngine", "local"]

_KEPT = 4  # models that stay loaded


class LocalEngine(ThreadedEngine):
    """A loaded model as an engine of :class:`sharpen.LM`.

    Args:
        llm: the model.
        scope: parts its replies in a cache from those of other models of its name.

    Example::

        lm = sharpen.LM(LocalEngine(LLM("tiny")))
    """

    def __init__(self, llm: LLM, scope: str = "") -> None:
        self.llm = llm
        self.model = llm.name
        self.capabilities = {"json_mode", "logprobs", "n", "seed", "stream"}
        self.scope = scope or f"local {llm.name}"

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The reply.

        Raises:
            RequestError: a parameter that the model's server would refuse.
            ConfigError: a parameter out of range, or a schema that cannot be held.
            DataError: the messages do not fit the context, or the model has no chat template.
        """
        begin = time.perf_counter()
        prompt, params = self._read(request)
        (output,) = self.llm.generate([prompt], params)
        return ChatResponse(
            texts=[one.text for one in output.outputs],
            usage=Usage(prompt=len(prompt), completion=sum(len(one.ids) for one in output.outputs)),
            finish_reasons=[one.finish_reason for one in output.outputs],
            model=self.model,
            latency_s=time.perf_counter() - begin,
            raw=self._raw(output.outputs) if request.logprobs is not None else None,
        )

    def stream(self, request: ChatRequest) -> Iterator[str]:
        """Pieces of the first reply as they come; raises as :meth:`complete`."""
        prompt, params = self._read(request)
        for piece in self.llm.stream(prompt, params):
            if piece.index == 0 and piece.text:
                yield piece.text

    def _read(self, request: ChatRequest) -> tuple[list[int], SamplingParams]:
        """Token ids of the conversation, and how to continue them."""
        try:
            body = Body.model_validate(ask_body(request, self.model))
            body.refuse_unknown()
            if body.tools:
                raise RequestError("tools need a server: sharpen serve MODEL.")
            prompt = self.llm.encode_chat(plain_messages(body.messages))
            room = max(self.llm.engine.max_context - len(prompt), 1)
            limits = (body.max_completion_tokens, body.max_tokens, room)
            limit = next(one for one in limits if one is not None)
            return prompt, body.params(limit, body.num_logprobs)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RequestError(f"{where}: {first['msg']}.") from None
        except ApiError as error:
            raise RequestError(str(error), error.status) from None

    def _raw(self, outputs: list[Completion]) -> dict[str, Any]:
        """The choices as the server gives them, with log-probabilities."""
        form = ChatForm(self.model, logprobs=True)
        choices = []
        for one in outputs:
            piece = Piece(
                text=one.text,
                ids=tuple(one.ids),
                index=one.index,
                finish_reason=one.finish_reason,
                logprobs=tuple(one.logprobs or ()),
            )
            choices.append(form.choice(one.index, [piece]))
        return {"choices": choices}


_loading = threading.Lock()


def local(rest: str, **options: Any) -> LocalEngine:
    """``local:NAME``: an asset's name or the beginning of it, a folder, or a ``.gguf`` file.

    The same name and options give the same engine, so that weights are loaded once.

    Args:
        rest: what follows ``local:``.
        options: of :class:`~sharpen.serve.llm.LLM`, as plain data.

    Raises:
        ConfigError: an option that is an object; make the :class:`LocalEngine` yourself then.
        MissingFileError: there is no such model.
    """
    try:
        told = json.dumps(options, sort_keys=True)
    except TypeError as error:
        raise ConfigError(
            f"options of local: must be plain data ({error}). For objects: "
            "LM(LocalEngine(LLM(...)))."
        ) from None
    name = rest
    if not Path(rest).exists():
        models = [asset.name for asset in list_assets("model")]
        near = [one for one in models if one.startswith(rest)]
        name = near[0] if rest and len(near) == 1 else rest
    with _loading:
        return _loaded(name, _identity(resolve_model(name)), told)


@functools.lru_cache(maxsize=_KEPT)
def _loaded(name: str, identity: str, options: str) -> LocalEngine:
    return LocalEngine(LLM(name, **json.loads(options)), f"local {identity} {options}")


def _identity(path: Path) -> str:
    """Changes whenever a file of the model does."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    told = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return digest([str(path.resolve()), told])
