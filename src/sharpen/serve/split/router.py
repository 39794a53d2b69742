"""The engine of a router: it computes nothing, and has workers do it.

To the API server it is an engine like any other: it admits, queues and cancels; text, stop texts
and grammars are followed here. For each continuation a thread talks to a pair of workers, chosen
when it starts by a policy of ``serve/simulate/policies.py`` from what was sent to each::

    token worker    hold blocks          {"reserved"}, or 503: the request waits here
    prompt worker   compute the prompt   {"token"}: the first token, to the client at once
                    keys and values go to the token worker, layer by layer
    token worker                         {"token"} ... {"end"}

A text whose vector is wanted goes to a prompt worker alone. Adapters are those that every worker
was started with, by name and hash.

A worker that does not answer is left out until its ``/health`` does. A request that has no token
yet is tried once more on another pair; one that has ends with an error.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.model_spec import ModelSpec
from sharpen.models.load import resolve_model
from sharpen.models.paged import PagedCache, PagedPart
from sharpen.models.tokenizer import load_tokenizer
from sharpen.serve.embedding import Embedding, pooling_of
from sharpen.serve.engine import Engine
from sharpen.serve.llm import LLM
from sharpen.serve.request import Continuation
from sharpen.serve.simulate.policies import Policy, make_policy
from sharpen.serve.split.engine import take_token
from sharpen.serve.split.remote import Gone, Remotes, RemoteWorker, expect, lines_of
from sharpen.serve.split.routes import pack_params

__all__ = ["RouterEngine", "RouterLLM"]

_log = logging.getLogger(__name__)
_ANSWER_S = 120.0
_PROBE_S = 2.0
_ROOM_S = 0.02


@dataclass(slots=True)
class _Job:
    """A request under way."""

    sequence: Continuation | Embedding
    links: list[http.client.HTTPConnection] = field(default_factory=list)

    def hang_up(self) -> None:
        """Wake whoever reads."""
        for link in self.links:
            if link.sock is not None:
                with suppress(OSError):
                    link.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of all connections; what is under way there ends."""
        links, self.links = self.links, []
        for link in links:
            link.close()


class _NoModel:
    """The shape of a model that others compute, with the adapters that they have."""

    def __init__(self, spec: ModelSpec, adapters: frozenset[str]) -> None:
        self.spec = spec
        self.device = torch.device("meta")
        self._adapters = adapters

    def paged(self, parts: Sequence[PagedPart], cache: PagedCache) -> torch.Tensor:
        raise ExecutionError("a router computes nothing.")

    def states(self, parts: Sequence[PagedPart], cache: PagedCache) -> torch.Tensor:
        raise ExecutionError("a router computes nothing.")

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        raise ExecutionError("a router computes nothing.")

    def load_adapter(self, folder: str | Path) -> Any:
        if folder not in self._adapters:
            raise ConfigError(
                "a router takes the adapters that its workers have. Give --lora NAME=PATH to each "
                "of them, and start the router again."
            )

    def new_paged_cache(self, num_blocks: int, block_size: int) -> PagedCache:
        return PagedCache(self.spec, num_blocks, block_size, device=self.device)

    def record(self, cache: PagedCache, rows: int) -> None:
        """Nothing is computed here."""


class RouterEngine(Engine):
    """See the module.

    Args:
        spec: the model's shape.
        tokenizer: of the model.
        workers: base addresses, such as ``http://127.0.0.1:8001``.
        policy: of ``serve/simulate/policies.py``.
        api_key: to show to workers.
        wait_s: for workers that still load.
        settings: as for :class:`~sharpen.serve.engine.Engine`.

    Raises:
        ConfigError: workers do not serve the same model and adapters, or none is for a phase.
        ExecutionError: a worker does not answer.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: Any,
        workers: Sequence[str],
        *,
        policy: str = "mixed_pool",
        api_key: str | None = None,
        wait_s: float = 0.0,
        **settings: Any,
    ) -> None:
        if not workers:
            raise ConfigError("a router needs workers. Give --worker http://HOST:PORT for each.")
        self._remotes = Remotes(api_key)
        deadline = time.monotonic() + wait_s
        infos = [self._remotes.info(url, deadline) for url in workers]
        prints = {info["fingerprint"] for info in infos}
        if len(prints) > 1:
            shown = ", ".join(
                f"{url} has {info['fingerprint']}" for url, info in zip(workers, infos, strict=True)
            )
            raise ConfigError(
                f"the workers serve different models: {shown}. Serve the same weights, type and "
                "adapter everywhere."
            )
        self.fingerprint: str = prints.pop()
        self._adapters = _same_adapters(workers, [info["adapters"] for info in infos])
        super().__init__(
            _NoModel(spec, frozenset(self._adapters.values())),
            tokenizer,
            max_context=min(info["max_context"] for info in infos),
            max_batch=sum(info["max_batch"] for info in infos),
            max_loras=len(self._adapters) + 1,
            **settings,
        )
        for name, own in self._adapters.items():
            self.adapters.load(name, own)
        self.workers = [
            RemoteWorker.of(i, url, info)
            for i, (url, info) in enumerate(zip(workers, infos, strict=True))
        ]
        self._policy_name = policy
        self._placing = threading.RLock()
        self._policy: Policy = make_policy(policy, self.workers)
        self._jobs: dict[Continuation | Embedding, _Job] = {}

    @property
    def num_running(self) -> int:
        """Continuations that workers have."""
        return len(self._jobs)

    @property
    def num_waiting(self) -> int:
        """Continuations that wait for their turn."""
        return len(self._arrived)

    def step(self) -> bool:
        """Start what arrived, hang up on what was cancelled."""
        with self._lock:
            room = self.max_batch - len(self._jobs)
            started, self._arrived = self._arrived[:room], self._arrived[room:]
            for one in started:
                one.started_s = time.perf_counter()
                self.admission.leave(one)
                self._jobs[one] = _Job(one)
        for one in started:
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()
        for job in list(self._jobs.values()):
            if job.sequence.cancelled:
                job.hang_up()
        if not started and self._jobs:
            time.sleep(0.002)  # a caller without a thread of its own asks again at once
        return bool(self._jobs or self._arrived)

    def fail(self, error: BaseException) -> None:
        """End all requests with ``error``."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for one in arrived:
            one.end("error", str(error))
        for job in list(self._jobs.values()):
            job.sequence.cancelled = True
            job.hang_up()

    def _serve(self, sequence: Continuation | Embedding) -> None:
        """One request, to its end."""
        job = self._jobs[sequence]
        try:
            for left in (1, 0):
                try:
                    if isinstance(sequence, Embedding):
                        self._embed(job, sequence)
                    else:
                        self._continue(job, sequence)
                    break
                except Gone as gone:
                    if sequence.cancelled:
                        break
                    _log.warning("%s", gone)
                    self._down(gone.worker)
                    if sequence.num_tokens or not left:
                        sequence.end("error", str(gone))
                        break
            if not sequence.finished:
                sequence.end("cancelled")
        except Exception as error:
            _log.exception("a request failed in the router")
            sequence.end("error", f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                del self._jobs[sequence]
            if self.on_finish is not None:
                self.on_finish(sequence)

    def _embed(self, job: _Job, sequence: Embedding) -> None:
        """Have the prompt worker with the least to do make a vector.

        Raises:
            Gone: it failed.
        """
        adapter, tokens = sequence.adapter, len(sequence.prompt_ids)
        body = {
            "prompt": sequence.prompt_ids,
            "fingerprint": self.fingerprint,
            "pooling": sequence.pooling,
            "priority": sequence.state.priority,
            "name": adapter.name if adapter is not None else None,
            "adapter": adapter.folder if adapter is not None else None,
        }
        with self._placing:
            self._probe()
            up = self._up()
            able = [one for one in up if one.home != "token"] or up
            worker = min(able, key=lambda one: (one.pending_tokens, one.number))
            worker.pending_tokens += tokens
            worker.num_jobs += 1
        try:
            line = expect(worker, self._ask(job, worker, "vector", body), "vector")
            data = bytearray(base64.b64decode(line["vector"]))
            sequence.vector = torch.frombuffer(data, dtype=torch.float32)
            sequence.first_token_s = sequence.last_token_s = time.perf_counter()
            sequence.end("stop")
        finally:
            job.close()
            with self._placing:
                worker.pending_tokens -= tokens
                worker.num_jobs -= 1

    def _place(self, sequence: Continuation) -> tuple[RemoteWorker, RemoteWorker]:
        """Workers of both phases; their loads count it."""
        prompt, output = len(sequence.prompt_ids), sequence.params.max_tokens
        with self._placing:
            self._probe()
            first, second = self._policy.place(prompt, output)
            if sequence.params.max_tokens == 1:
                second, unused = first, second  # nothing is left for another
                if not unused.foreign:
                    self._policy.freed(unused)
            first.pending_tokens += prompt
            second.pending_tokens += 1
            second.reserved_tokens += prompt + 1 + output
            for one in {first.number, second.number}:
                self.workers[one].num_jobs += 1
            first.foreign += first.home == "token"
            second.foreign += second.home == "prompt"
        return self.workers[first.number], self.workers[second.number]

    def _prompt_done(self, worker: RemoteWorker, sequence: Continuation) -> None:
        with self._placing:
            worker.pending_tokens -= len(sequence.prompt_ids)
            self._not_foreign(worker, "token")

    def _done(self, first: RemoteWorker, second: RemoteWorker, sequence: Continuation) -> None:
        with self._placing:
            second.pending_tokens -= 1
            tokens = len(sequence.prompt_ids) + 1 + sequence.params.max_tokens
            second.reserved_tokens -= tokens
            for one in {first.number, second.number}:
                self.workers[one].num_jobs -= 1
            self._not_foreign(second, "prompt")

    def _not_foreign(self, worker: RemoteWorker, home: str) -> None:
        if worker.home == home:
            worker.foreign -= 1
            if not worker.foreign:
                self._policy.freed(worker)

    def _continue(self, job: _Job, sequence: Continuation) -> None:
        """Both phases of a continuation on a pair of workers.

        Raises:
            Gone: one of them failed.
        """
        first, second = self._place(sequence)
        prompt_done = False
        body = {
            "id": secrets.token_hex(16),
            "prompt": sequence.prompt_ids,
            "params": pack_params(sequence.params),
            "index": sequence.index,
            "fingerprint": self.fingerprint,
            "adapter": sequence.adapter.folder if sequence.adapter is not None else None,
        }
        try:
            if first is second:
                lines = self._ask(job, second, "tokens", {**body, "whole": True})
                self._follow(second, lines, sequence)
                return
            tokens = self._ask(job, second, "tokens", body)
            expect(second, tokens, "reserved")
            prompt = self._ask(job, first, "prompt", {**body, "target": second.url})
            line = expect(first, prompt, "token")
            take_token(sequence, int(line["token"]), line)
            self._prompt_done(first, sequence)
            prompt_done = True
            if sequence.finished:
                return
            expect(first, prompt, "sent")
            expect(second, tokens, "token")  # the first one, which is out
            self._follow(second, tokens, sequence)
        finally:
            job.close()
            if not prompt_done:
                self._prompt_done(first, sequence)
            self._done(first, second, sequence)

    def _follow(
        self, worker: RemoteWorker, lines: Iterator[dict[str, Any]], sequence: Continuation
    ) -> None:
        """Take tokens until the continuation ends, here or there."""
        for line in lines:
            if sequence.finished or sequence.cancelled:
                return
            if "token" in line:
                take_token(sequence, int(line["token"]), line)
            elif line.get("end") in ("cancelled", "error"):
                raise Gone(worker, line.get("error") or "it lost the request")
        if not sequence.finished:
            raise Gone(worker, "its answer ended early")

    def _ask(
        self, job: _Job, worker: RemoteWorker, phase: str, body: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Lines of an answer; waits while the worker has no room."""
        data = json.dumps(body).encode()
        while True:
            if job.sequence.cancelled:
                raise Gone(worker, "cancelled")
            link = self._remotes.link(worker.url, _ANSWER_S)
            job.links.append(link)
            try:
                link.request("POST", f"/split/{phase}", data, self._remotes.headers)
                answer = link.getresponse()
                if answer.status == 200:
                    return lines_of(worker, answer)
                text = answer.read(4000).decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                raise Gone(worker, error) from error
            job.links.remove(link)
            link.close()
            if "no_room" not in text:
                raise ExecutionError(f"the worker {worker.url} refused a request: {text}")
            time.sleep(_ROOM_S)

    def _down(self, worker: RemoteWorker) -> None:
        with self._placing:
            if worker.down_s is None and not self._remotes.is_healthy(worker):
                self._choose_without(worker)

    def _choose_without(self, worker: RemoteWorker) -> None:
        worker.down_s = time.monotonic()
        self._new_policy()

    def _new_policy(self) -> None:
        """For the workers that are up; those of one kind do both phases."""
        up = self._up()
        try:
            self._policy = make_policy(self._policy_name, up)
        except ConfigError:
            self._policy = make_policy("token_jsq", up)

    def _up(self) -> list[RemoteWorker]:
        return [one for one in self.workers if one.down_s is None] or self.workers

    def _probe(self) -> None:
        """Take workers in again that answer."""
        now = time.monotonic()
        for worker in self.workers:
            if worker.down_s is not None and now - worker.down_s > _PROBE_S:
                worker.down_s = None if self._remotes.is_healthy(worker) else now
                if worker.down_s is None:
                    self._new_policy()


class RouterLLM(LLM):
    """What the API server needs of a model whose workers are elsewhere.

    Args:
        model: as for :class:`~sharpen.serve.llm.LLM`; only its shape and tokenizer are read.
        workers: base addresses.
        policy: of ``serve/simulate/policies.py``.
        api_key: to show to workers.
        wait_s: for workers that still load.

    Raises:
        ConfigError: workers do not serve the same model and adapters, or none is for a phase.
        ExecutionError: a worker does not answer.
    """

    def __init__(
        self,
        model: str | Path,
        workers: Sequence[str],
        *,
        policy: str = "mixed_pool",
        api_key: str | None = None,
        wait_s: float = 0.0,
    ) -> None:
        path = resolve_model(model)
        self.name = str(model) if not Path(model).exists() else path.resolve().name
        self.tokenizer = load_tokenizer(model)
        self.spec = ModelSpec.from_ref(path)
        self.pooling = pooling_of(path)
        eos_ids = set(self.spec.eos_token_ids)
        if self.tokenizer.eos_id is not None:
            eos_ids.add(self.tokenizer.eos_id)
        self.engine = RouterEngine(
            self.spec,
            self.tokenizer,
            workers,
            policy=policy,
            api_key=api_key,
            wait_s=wait_s,
            eos_ids=frozenset(eos_ids),
        )
        self._lock = threading.RLock()


def _same_adapters(urls: Sequence[str], adapters: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Hashes of adapters by name, which all workers agree on.

    Raises:
        ConfigError: they do not.
    """
    for name in sorted({name for own in adapters for name in own}):
        hashes = [own.get(name, "none") for own in adapters]
        if len(set(hashes)) > 1:
            shown = ", ".join(f"{url} has {one}" for url, one in zip(urls, hashes, strict=True))
            raise ConfigError(
                f"the workers do not have the same adapter {name!r}: {shown}. Give the same files "
                f"to all of them with --lora {name}=PATH."
            )
    return adapters[0]
