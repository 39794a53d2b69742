"""The ``serve`` stage: start the server on what was made, ask it one question, stop it.

The server is the one ``sharpen serve`` starts, in a process of its own, and the question goes
through the ``openai`` client over HTTP. The answer is greedy, so the artifact depends on the model
alone; times are measurements. The process dies with the stage, even when that is killed.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sharpen.core.errors as errors
from sharpen.core.config import read_json
from sharpen.core.errors import (
    ConfigError,
    DependencyNotInstalled,
    ExecutionError,
    SharpenError,
)
from sharpen.core.files import atomic_write_json
from sharpen.core.huge_pages import worker_environment
from sharpen.core.report import Section, Table, Text
from sharpen.core.stage import Artifact, StageContext, StageResult, StageType

__all__ = ["SERVE", "CheckConfig", "ServeConfig", "run_serve"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckConfig:
    """The question that shows that the server works."""

    prompt: str = "Say hello."
    """What the user says."""

    system: str | None = None
    """What the system says before it."""

    max_tokens: int = 64
    """Longest answer, in tokens."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.prompt:
            raise ConfigError("check.prompt is empty; give a question.")
        if self.max_tokens < 1:
            raise ConfigError(f"check.max_tokens={self.max_tokens} must be at least 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """What is served, where, and what it is asked."""

    variant: str | None = None
    """Sub-folder of the model artifact, such as ``int4``, when it holds several models."""

    port: int = 0
    """Port on 127.0.0.1; 0 takes a free one."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of weights and activations."""

    check: CheckConfig = field(default_factory=CheckConfig)
    """The question."""

    monitor: int | None = None
    """Held-out prompts, at least 40, that a reference for ``sharpen serve --monitor`` is made of;
    null makes none."""

    startup_s: float = 600.0
    """Seconds the server may take to load the model."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"port={self.port} must be from 0 to 65535.")
        if self.monitor is not None and self.monitor < 40:
            raise ConfigError(f"monitor={self.monitor} must be at least 40 prompts.")
        if not self.startup_s > 0:
            raise ConfigError(f"startup_s={self.startup_s} must be above 0.")


def run_serve(config: ServeConfig, context: StageContext) -> StageResult:
    """Start the server, ask, stop it, write ``answer.json``; then the monitoring reference."""
    model, adapter = _what(config, context)
    held = _held_out(config, context)
    key = secrets.token_hex(16)
    begin = time.perf_counter()
    with _server(config, model, adapter, key) as url:
        startup_s = time.perf_counter() - begin
        with context.progress("ask the server", config.check.max_tokens) as bar:
            answer, measured = _ask(config.check, url, key, bar.advance)
    atomic_write_json(context.output / "answer.json", answer)
    if held is not None:
        with context.progress("monitoring reference"):
            _write_reference(config, held, model, adapter, context.output)
    return StageResult(results=answer, measured={"startup_s": startup_s, **measured})


def _what(config: ServeConfig, context: StageContext) -> tuple[str, str | None]:
    """The model's reference and the adapter to fold in, if any."""
    made, adapter = context.inputs.get("model"), context.inputs.get("adapter")
    if made is None:
        if config.variant is not None:
            raise ConfigError(
                f"{context.stage}.variant={config.variant!r}, but no earlier stage made a model. "
                "Remove it, or put a 'compress' stage before."
            )
        if context.model is None:
            raise ConfigError(f"{context.stage}: there is no model. Give the recipe a 'model'.")
        return context.model, str(adapter.path) if adapter is not None else None
    folder = _folder(made, config.variant)
    quantized = "quantization_config" in read_json(folder / "config.json", "model config")
    # A quantized model was made after the adapter was folded in, and could not take one.
    return str(folder), str(adapter.path) if adapter is not None and not quantized else None


def _folder(artifact: Artifact, variant: str | None) -> Path:
    if variant is None and (artifact.path / "config.json").exists():
        return artifact.path
    variants = sorted(path.parent.name for path in artifact.path.glob("*/config.json"))
    if variant not in variants:
        raise ConfigError(
            f"variant={variant!r} is none of the models of the stage '{artifact.stage}': "
            f"{', '.join(variants) or 'it made one model without variants'}."
        )
    return artifact.path / str(variant)


def _held_out(config: ServeConfig, context: StageContext) -> Path | None:
    """The held-out examples that a reference is to be made of, if it is."""
    if config.monitor is None:
        return None
    dataset = context.inputs.get("dataset")
    if dataset is None or not (dataset.path / "valid.jsonl").exists():
        raise ConfigError(
            f"{context.stage}.monitor={config.monitor} needs held-out examples. Put a 'data' stage "
            "with 'split: {valid: 0.1}' before, or remove it."
        )
    return dataset.path / "valid.jsonl"


def _write_reference(
    config: ServeConfig, held: Path, model: str, adapter: str | None, output: Path
) -> None:
    """Write ``monitor.json`` from held-out prompts, as clients would send them."""
    from sharpen.serve.llm import LLM
    from sharpen.serve.reference import held_out_prompts, make_reference

    llm = LLM(model, dtype=config.dtype, adapter=adapter)
    chat = llm.tokenizer.chat_template is not None
    prompts = held_out_prompts(held, config.monitor or 0, chat=chat)
    make_reference(llm, prompts).save(output / "monitor.json")


@contextmanager
def _server(config: ServeConfig, model: str, adapter: str | None, key: str) -> Iterator[str]:
    """A running server's address; it is stopped by its process id on leaving."""
    request = {
        "parent": os.getpid(),
        "model": model,
        "adapter": adapter,
        "name": "check",
        "port": config.port,
        "dtype": config.dtype,
        "api_key": key,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "sharpen.serve.api.child", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=worker_environment(),
    )
    try:
        yield _first_line(process, config.startup_s)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    """Wait for the child's line; returns the address in it."""
    import select

    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    if not ready:
        raise ExecutionError(
            f"the server did not answer within {timeout_s:g} s. Raise serve.startup_s, or serve a "
            "smaller model."
        )
    line = process.stdout.readline()
    if not line:
        raise ExecutionError(f"the server ended with exit code {process.wait()} and no message.")
    document = json.loads(line)
    if "error" in document:
        kind = getattr(errors, document["error"]["class"], ExecutionError)
        assert issubclass(kind, SharpenError)
        raise kind(document["error"]["message"])
    return str(document["url"])


def _ask(
    check: CheckConfig, url: str, key: str, advance: Any
) -> tuple[dict[str, Any], dict[str, float]]:
    """One streamed chat request; the answer, and how fast it came."""
    try:
        import openai
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("the serve stage's check", "quickstart") from None
    messages: list[Any] = [{"role": "user", "content": check.prompt}]
    if check.system is not None:
        messages.insert(0, {"role": "system", "content": check.system})
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=600) as client:
        begin = time.perf_counter()
        first = last = begin
        text, reason, num_tokens = "", None, 0
        chunks: Any = client.chat.completions.create(
            model="check",
            messages=messages,
            temperature=0,
            max_tokens=check.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in chunks:
            if chunk.usage is not None:
                num_tokens = chunk.usage.completion_tokens
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                if choice.delta.content:
                    last = time.perf_counter()
                    first = last if not text else first
                    text += choice.delta.content
                    advance(1)
    answer = {
        "ok": reason in ("stop", "length"),
        "prompt": check.prompt,
        "answer": text,
        "finish_reason": reason,
        "tokens": num_tokens,
    }
    speed = {"ttft_s": first - begin}
    if num_tokens > 1 and last > first:
        speed["tokens_per_s"] = (num_tokens - 1) / (last - first)
    return answer, speed


def _report(summary: dict[str, Any]) -> list[Section]:
    names = {
        "ok": "answered",
        "tokens": "tokens",
        "ttft_s": "seconds to the first token",
        "tokens_per_s": "tokens/s after it",
        "startup_s": "seconds to load the model",
    }
    rows = [[label, summary[key]] for key, label in names.items() if key in summary]
    blocks: list[Text | Table] = [
        Text("Asked over HTTP, by the openai client:"),
        Text(str(summary.get("prompt", "")), preformatted=True),
        Text(str(summary.get("answer", "")), preformatted=True),
        Table(["", "value"], rows),
    ]
    return [Section("Serving", blocks)]


SERVE = StageType(
    name="serve",
    version=1,
    config=ServeConfig,
    run=run_serve,
    loads=("sharpen.serve.reference",),
    makes="report",
    optional=("model", "adapter", "dataset"),
    needs_model=True,
    report=_report,
)
