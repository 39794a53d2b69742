"""Generation by a server with OpenAI's ``/completions``, such as ``sharpen serve`` or vLLM.

Prompts go as token ids; what comes back is text, which is encoded again: where that gives other
tokens than the server sampled, log-probabilities are of those that would have been written so.
Trained adapters are handed over as files, by ``/load_lora_adapter``, which the server must be able
to read.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from sharpen.align.engines.protocol import Generated
from sharpen.core.errors import ConfigError, DependencyNotInstalled, ExecutionError
from sharpen.core.lm.addresses import key_of_environment, server_address
from sharpen.models.decoder import DecoderLM
from sharpen.models.lora import LoraConfig, save_adapter
from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.sampling import SamplingParams

__all__ = ["ClientEngine"]

_RETRIES = 4


class ClientEngine:
    """See the module.

    Args:
        url: of the server, such as ``http://127.0.0.1:8000/v1``; the key comes from the
            environment, see :func:`~sharpen.core.lm.addresses.key_of_environment`.
        tokenizer: of the model.
        lora: of the adapters that are trained; None where whole models are.
        exchange: folder for adapters.
        max_batch: requests at the same time.
        model: the server's name of the model; default its first.

    Raises:
        ConfigError: whole models are trained, which no server takes over.
        DependencyNotInstalled: ``openai`` is not installed.
        ExecutionError: the server does not answer.
    """

    def __init__(
        self,
        url: str,
        tokenizer: Tokenizer,
        *,
        lora: LoraConfig | None,
        exchange: Path,
        max_batch: int = 64,
        model: str | None = None,
    ) -> None:
        if lora is None:
            raise ConfigError(
                "a server cannot take over whole models while they are trained: train adapters "
                "(tune=lora), or let engine be serve."
            )
        try:
            import openai
        except ModuleNotFoundError as error:
            raise DependencyNotInstalled(
                "an engine behind HTTP needs the package 'openai'. Install it: pip install openai"
            ) from error
        self.version = -1
        address = server_address(url)
        self._errors = openai.OpenAIError
        self._client = openai.OpenAI(
            base_url=address,
            api_key=key_of_environment(address) or "none",
            max_retries=_RETRIES,
        )
        self._tokenizer, self._lora, self._exchange = tokenizer, lora, exchange
        self._threads = ThreadPoolExecutor(max_batch)
        try:
            self._base = model or self._client.models.list().data[0].id
        except self._errors as error:
            raise ExecutionError(f"the server {address} does not answer: {error}") from error
        self._name: str | None = None

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[Generated]:
        """See :class:`~sharpen.align.engines.Engine`; log-probabilities are not told.

        Raises:
            ExecutionError: the server failed, after it was asked again.
        """
        try:
            return list(self._threads.map(self._one, prompts, params))
        except self._errors as error:
            raise ExecutionError(f"the server failed to generate: {error}") from error

    def update_weights(self, model: DecoderLM, version: int) -> None:
        """Write the adapters and have the server load them; those before are forgotten.

        Raises:
            ExecutionError: the server refuses.
        """
        folder = (self._exchange / f"policy-{version}").resolve()
        save_adapter(model, folder, self._lora)
        name = f"{self._base}-policy-{version}"
        try:
            self._post("load", {"lora_name": name, "lora_path": str(folder)})
            if self._name is not None:
                self._post("unload", {"lora_name": self._name})
        except self._errors as error:
            raise ExecutionError(
                f"the server did not take the adapter in {folder}: {error}. It must be started so "
                "that clients may load adapters, and read this folder."
            ) from error
        for old in self._exchange.glob("policy-*"):
            if old.resolve() != folder:
                shutil.rmtree(old, ignore_errors=True)
        self._name, self.version = name, version

    def close(self) -> None:
        """Forget the adapter, and end the threads."""
        if self._name is not None:
            with suppress(self._errors):  # the server may be gone, and the adapter with it
                self._post("unload", {"lora_name": self._name})
            self._name = None
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def _post(self, what: str, body: dict[str, Any]) -> None:
        self._client.post(f"/{what}_lora_adapter", body=body, cast_to=object)

    def _one(self, prompt: Sequence[int], params: SamplingParams) -> Generated:
        answer = self._client.completions.create(
            model=self._name or self._base,
            prompt=list(prompt),
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            seed=params.seed if params.seed is None else params.seed % (1 << 53),
            extra_body={"top_k": params.top_k} if params.top_k else None,
        )
        choice = answer.choices[0]
        ids = self._tokenizer.encode(choice.text)
        stopped = choice.finish_reason == "stop"
        if stopped and self._tokenizer.eos_id is not None:
            ids.append(self._tokenizer.eos_id)
        return Generated(
            token_ids=ids,
            text=choice.text,
            finish_reason="stop" if stopped else "length",
        )
