"""The engine of a router: it computes nothing, and has workers do it.

To the API server it is an engine like any other: it admits, queues and cancels; text, stop texts
and grammars are followed here. For each continuation a thread talks to a pair of workers, chosen
when it starts by a policy of ``serve/simulate/policies.py`` from what was sent to each::

    token worker    hold blocks          {"reserved"}, or 503: the request waits here
    prompt worker   compute the prompt   {"token"}: the first token, to the client at once
                    keys and values go to the token worker, layer by layer
    token worker                         {"token"} ... {"end"}

A worker that does not answer is left out until its ``/health`` does. A request that has no token
yet is tried once more on another pair; one that has ends with an error.
"""

from __future__ import annotations

import http.client
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch

from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.core.model_spec import ModelSpec
from sharpen.models.load import resolve_model
from sharpen.models.paged import PagedCache, PagedPart
from sharpen.models.tokenizer import load_tokenizer
from sharpen.serve.embedding import Embedding, pooling_of
from sharpen.serve.engine import Engine
from sharpen.serve.llm import LLM
from sharpen.serve.request import Continuation
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.simulate.policies import Policy, make_policy
from sharpen.serve.split.engine import refuse_unsplittable, take_token
from sharpen.serve.split.routes import pack_params

__all__ = ["RemoteWorker", "RouterEngine", "RouterLLM"]

_log = logging.getLogger(__name__)
_HOMES: dict[str, Literal["prompt", "token", "mixed"]] = {
    "prefill": "prompt",
    "decode": "token",
    "mixed": "mixed",
}
_ANSWER_S = 120.0
_PROBE_S = 2.0
_ROOM_S = 0.02


class _Gone(Exception):
    """A worker does not answer, or lost a request."""

    def __init__(self, worker: RemoteWorker, why: object) -> None:
        super().__init__(f"the worker {worker.url} failed: {why}")
        self.worker = worker


@dataclass(slots=True, eq=False)
class RemoteWorker:
    """A worker as the router sees it; a :class:`~sharpen.serve.simulate.policies.Load`."""

    number: int
    url: str
    home: Literal["prompt", "token", "mixed"]
    capacity: int
    max_batch: int
    pending_tokens: int = 0
    reserved_tokens: int = 0
    foreign: int = 0
    num_jobs: int = 0
    down_s: float | None = None
    """When it was last found not to answer."""

    @property
    def waiting(self) -> bool:
        """Whether it has more requests than run at the same time."""
        return self.num_jobs > 1 if self.home == "prompt" else self.num_jobs > self.max_batch


@dataclass(slots=True)
class _Job:
    """A continuation under way."""

    sequence: Continuation
    links: list[http.client.HTTPConnection] = field(default_factory=list)

    def hang_up(self) -> None:
        """Wake whoever reads."""
        for link in self.links:
            if link.sock is not None:
                with suppress(OSError):
                    link.sock.shutdown(socket.SHUT_RDWR)


class _NoModel:
    """The shape of a model that others compute."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def paged(self, parts: Sequence[PagedPart], cache: PagedCache) -> torch.Tensor:
        raise ExecutionError("a router computes nothing.")

    def states(self, parts: Sequence[PagedPart], cache: PagedCache) -> torch.Tensor:
        raise ExecutionError("a router computes nothing.")

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        raise ExecutionError("a router computes nothing.")

    def load_adapter(self, folder: str | Path) -> Any:
        raise ConfigError("adapters are not available where prompts have their own workers.")

    def new_paged_cache(self, num_blocks: int, block_size: int) -> PagedCache:
        return PagedCache(self.spec, num_blocks, block_size, device="meta")


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
        ConfigError: workers do not serve the same model, or none is for a phase.
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
        self._api_key = api_key
        deadline = time.monotonic() + wait_s
        infos = [self._info(url, deadline) for url in workers]
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
        limit = min(info["max_context"] for info in infos)
        total = sum(info["max_batch"] for info in infos)
        super().__init__(_NoModel(spec), tokenizer, max_context=limit, max_batch=total, **settings)
        self.workers = [
            RemoteWorker(i, url, _HOMES[info["role"]], info["capacity"], info["max_batch"])
            for i, (url, info) in enumerate(zip(workers, infos, strict=True))
        ]
        self._policy_name = policy
        self._placing = threading.RLock()
        self._policy: Policy = make_policy(policy, self.workers)
        self._jobs: dict[Continuation, _Job] = {}

    @property
    def num_running(self) -> int:
        """Continuations that workers have."""
        return len(self._jobs)

    @property
    def num_waiting(self) -> int:
        """Continuations that wait for their turn."""
        return len(self._arrived)

    def check(self, prompt_ids: Sequence[int], params: SamplingParams) -> None:
        """Refuse a request that cannot be run; see :meth:`Engine.submit`."""
        refuse_unsplittable(params)
        super().check(prompt_ids, params)

    def embed(self, *args: Any, **settings: Any) -> Embedding:
        """Refused: workers do not give vectors.

        Raises:
            DataError: always.
        """
        raise DataError("a router gives no vectors. Ask a server of one model.")

    def step(self) -> bool:
        """Start what arrived, hang up on what was cancelled."""
        with self._lock:
            room = self.max_batch - len(self._jobs)
            started, self._arrived = self._arrived[:room], self._arrived[room:]
            for one in started:
                assert isinstance(one, Continuation)
                one.started_s = time.perf_counter()
                self.admission.leave(one)
                self._jobs[one] = _Job(one)
        for one in started:
            assert isinstance(one, Continuation)
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

    def _serve(self, sequence: Continuation) -> None:
        """One continuation, to its end."""
        job = self._jobs[sequence]
        try:
            for left in (1, 0):
                pair = self._place(sequence)
                try:
                    self._carry_out(job, *pair)
                    break
                except _Gone as gone:
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

    def _carry_out(self, job: _Job, first: RemoteWorker, second: RemoteWorker) -> None:
        """Both phases of a request on a pair.

        Raises:
            _Gone: one of them failed.
        """
        sequence, prompt_done = job.sequence, False
        body = {
            "id": secrets.token_hex(16),
            "prompt": sequence.prompt_ids,
            "params": pack_params(sequence.params),
            "index": sequence.index,
            "fingerprint": self.fingerprint,
        }
        try:
            if first is second:
                self._follow(
                    second, self._ask(job, second, "tokens", {**body, "whole": True}), sequence
                )
                return
            tokens = self._ask(job, second, "tokens", body)
            _expect(second, tokens, "reserved")
            prompt = self._ask(job, first, "prompt", {**body, "target": second.url})
            token = int(_expect(first, prompt, "token"))
            take_token(sequence, token)
            self._prompt_done(first, sequence)
            prompt_done = True
            if sequence.finished:
                return
            _expect(first, prompt, "sent")
            _expect(second, tokens, "token")  # the first one, which is out
            self._follow(second, tokens, sequence)
        finally:
            job.links, links = [], job.links
            for link in links:
                link.close()
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
                take_token(sequence, int(line["token"]))
            elif line.get("end") in ("cancelled", "error"):
                raise _Gone(worker, line.get("error") or "it lost the request")
        if not sequence.finished:
            raise _Gone(worker, "its answer ended early")

    def _ask(
        self, job: _Job, worker: RemoteWorker, phase: str, body: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Lines of an answer; waits while the worker has no room."""
        data = json.dumps(body).encode()
        while True:
            if job.sequence.cancelled:
                raise _Gone(worker, "cancelled")
            link = self._link(worker.url, _ANSWER_S)
            job.links.append(link)
            try:
                link.request("POST", f"/split/{phase}", data, self._headers())
                answer = link.getresponse()
                if answer.status == 200:
                    return _lines(worker, answer)
                text = answer.read(4000).decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                raise _Gone(worker, error) from error
            job.links.remove(link)
            link.close()
            if "no_room" not in text:
                raise ExecutionError(f"the worker {worker.url} refused a request: {text}")
            time.sleep(_ROOM_S)

    def _info(self, url: str, deadline: float) -> dict[str, Any]:
        while True:
            text, problem = b"", ""
            try:
                with closing(self._link(url, 10.0)) as link:
                    link.request("GET", "/split/info", headers=self._headers())
                    answer = link.getresponse()
                    text = answer.read()
                if answer.status == 200:
                    found: dict[str, Any] = json.loads(text)
                    return found
                problem = f"answered with status {answer.status}: {text[:300]!r}"
                loading = answer.status == 503
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                problem, loading = f"does not answer: {error}", True
            if not loading or time.monotonic() > deadline:
                raise ExecutionError(
                    f"the worker {url} {problem}. Start it with sharpen serve MODEL --role prefill "
                    "(or decode, mixed) first."
                )
            time.sleep(0.2)

    def _link(self, url: str, timeout_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"worker={url!r} is no address. Write http://HOST:PORT.")
        return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers

    def _down(self, worker: RemoteWorker) -> None:
        with self._placing:
            if worker.down_s is None and not self._healthy(worker):
                self._choose_without(worker)

    def _choose_without(self, worker: RemoteWorker) -> None:
        worker.down_s = time.monotonic()
        self._new_policy()

    def _new_policy(self) -> None:
        """For the workers that are up; those of one kind do both phases."""
        up = [one for one in self.workers if one.down_s is None] or self.workers
        try:
            self._policy = make_policy(self._policy_name, up)
        except ConfigError:
            self._policy = make_policy("token_jsq", up)

    def _probe(self) -> None:
        """Take workers in again that answer."""
        now = time.monotonic()
        for worker in self.workers:
            if worker.down_s is not None and now - worker.down_s > _PROBE_S:
                worker.down_s = None if self._healthy(worker) else now
                if worker.down_s is None:
                    self._new_policy()

    def _healthy(self, worker: RemoteWorker) -> bool:
        with closing(self._link(worker.url, 1.0)) as link:
            try:
                link.request("GET", "/health", headers=self._headers())
                return link.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


class RouterLLM(LLM):
    """What the API server needs of a model whose workers are elsewhere.

    Args:
        model: as for :class:`~sharpen.serve.llm.LLM`; only its shape and tokenizer are read.
        workers: base addresses.
        policy: of ``serve/simulate/policies.py``.
        api_key: to show to workers.
        wait_s: for workers that still load.

    Raises:
        ConfigError: workers do not serve the same model, or none is for a phase.
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


def _lines(worker: RemoteWorker, answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while True:
        try:
            line = answer.readline()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Gone(worker, error) from error
        if not line.endswith(b"\n"):
            return
        yield json.loads(line)


def _expect(worker: RemoteWorker, lines: Iterator[dict[str, Any]], name: str) -> Any:
    line = next(lines, {})
    if name not in line:
        raise _Gone(worker, line.get("error") or "its answer ended early")
    return line[name]
