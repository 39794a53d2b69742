"""``sharpen serve``: a model behind an OpenAI-compatible HTTP API."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sharpen.cli.common import Output, command, error_console, flags
from sharpen.cli.options import Device

__all__ = ["register"]

Model = Annotated[
    str, typer.Argument(help="An asset's name, a model folder or a .gguf file.", show_default=False)
]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to fold in.")]


def _named(options: list[str]) -> dict[str, Path]:
    """Folders by name, of options NAME=PATH."""
    from sharpen.core.errors import ConfigError

    found = {}
    for option in options:
        name, sign, path = option.partition("=")
        if not (name and sign and path):
            raise ConfigError(f"lora={option!r} must be NAME=PATH.")
        if name in found:
            raise ConfigError(f"lora={option!r}: the name is taken. Choose another.")
        found[name] = Path(path)
    return found


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "serve", example="sharpen serve smollm2-135m-instruct --port 8000")
    def serve(
        model: Model,
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
        api_key: Annotated[
            list[str] | None,
            typer.Option(help="A key clients must send; repeatable. Also SHARPEN_API_KEY."),
        ] = None,
        name: Annotated[str | None, typer.Option(help="Model name for clients.")] = None,
        dtype: Dtype = "auto",
        device: Device = "auto",
        adapter: Adapter = None,
        lora: Annotated[
            list[str] | None,
            typer.Option(help="A LoRA adapter to serve beside the model: NAME=PATH; repeatable."),
        ] = None,
        max_loras: Annotated[int, typer.Option(help="Adapters at the same time.")] = 8,
        allow_runtime_lora: Annotated[
            bool, typer.Option("--allow-runtime-lora", help="Let clients load and unload adapters.")
        ] = False,
        ui: Annotated[bool, typer.Option("--ui", help="A chat page in the browser, at /.")] = False,
        max_batch: Annotated[int, typer.Option(help="Requests that run at the same time.")] = 16,
        max_queue: Annotated[int, typer.Option(help="Requests that may wait; else 429.")] = 256,
        max_queue_tokens: Annotated[
            int | None, typer.Option(help="Tokens of prompts that may wait; else 429.")
        ] = None,
        queue_timeout: Annotated[
            float | None, typer.Option(help="Estimated seconds a request may wait; else 429.")
        ] = None,
        max_context: Annotated[
            int | None, typer.Option(help="Prompt and new tokens together, at most.")
        ] = None,
        max_batched_tokens: Annotated[
            int | None,
            typer.Option(
                help="Tokens of one round; longer prompts come in parts. Default: 512 on the CPU, "
                "8192 elsewhere."
            ),
        ] = None,
        kv_cache_memory: Annotated[
            str | None, typer.Option(help="For keys and values, such as 2GiB.")
        ] = None,
        block_size: Annotated[int, typer.Option(help="Tokens of a block of the cache.")] = 16,
        prefix_caching: Annotated[
            bool, typer.Option(help="Reuse what is known of a prompt.")
        ] = True,
        aging: Annotated[
            float, typer.Option(help="Priority that a second of waiting is worth.")
        ] = 0.0,
        speculate: Annotated[
            str | None, typer.Option(help="Guess tokens from the text, such as ngram:k=4,n=3.")
        ] = None,
        kv_policy: Annotated[
            str,
            typer.Option(
                help="What long prompts keep of their keys and values: full, window, sinks, h2o, "
                "snapkv, knorm or locret."
            ),
        ] = "full",
        kv_budget: Annotated[
            int | None, typer.Option(help="Tokens whose keys and values each head keeps.")
        ] = None,
        locret_heads: Annotated[
            Path | None, typer.Option(help="Folder of heads (sharpen compress locret train).")
        ] = None,
        tool_parser: Annotated[
            str | None,
            typer.Option(help="How the model writes calls: hermes or llama3_json."),
        ] = None,
        metrics_alias: Annotated[
            list[str] | None,
            typer.Option(help="Give metrics under this prefix, too, such as vllm; repeatable."),
        ] = None,
        max_body: Annotated[str, typer.Option(help="Largest request body; else 413.")] = "8MiB",
        log_format: Annotated[
            str, typer.Option(help="text, or json with a line for every request.")
        ] = "text",
        monitor: Annotated[
            Path | None,
            typer.Option(help="Watch for drift from this reference (sharpen monitor reference)."),
        ] = None,
        monitor_window: Annotated[
            int, typer.Option(help="Requests that are compared with the reference at once.")
        ] = 200,
        role: Annotated[
            str | None,
            typer.Option(help="Split phases: prefill, decode or mixed for a worker, or router."),
        ] = None,
        worker: Annotated[
            list[str] | None,
            typer.Option(help="Of a router: http://HOST:PORT of a worker; repeatable."),
        ] = None,
        policy: Annotated[
            str, typer.Option(help="Of a router: how it chooses workers, such as kv_round_robin.")
        ] = "mixed_pool",
        layerwise_from: Annotated[
            int, typer.Option(help="Prompt tokens from which keys and values go layer by layer.")
        ] = 512,
        kv_checksum: Annotated[
            bool, typer.Option("--kv-checksum", help="Check keys and values on their way.")
        ] = False,
        kv_connector: Annotated[
            str,
            typer.Option(
                help="How keys and values go: http, shm (memory shared on one host), or auto: "
                "shm where the other worker is on this host."
            ),
        ] = "auto",
    ) -> Output:
        """Serve a model until Ctrl-C or SIGTERM; any OpenAI client can talk to it."""
        from sharpen.core.errors import ConfigError, DependencyNotInstalled
        from sharpen.models.devices import resolve_device
        from sharpen.models.load import resolve_model
        from sharpen.serve.admission import QueueLimits
        from sharpen.serve.llm import LLM, parse_bytes, resolve_dtype
        from sharpen.serve.monitor import MonitorConfig
        from sharpen.serve.reference import Reference

        try:
            from sharpen.serve.api.logs import use_json_logs
            from sharpen.serve.api.server import ApiServer, ServerConfig
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("sharpen serve", "serve") from None
        if log_format not in ("text", "json"):
            raise ConfigError(f"log_format={log_format!r} must be text or json.")
        if log_format == "json":
            use_json_logs()
        path = resolve_model(model)
        shown = name or (model if not Path(model).exists() else path.resolve().name)
        keys = tuple(api_key or ())
        if not keys and os.environ.get("SHARPEN_API_KEY"):
            keys = (os.environ["SHARPEN_API_KEY"],)
        config = ServerConfig(
            name=shown,
            host=host,
            port=port,
            api_keys=keys,
            limits=QueueLimits(requests=max_queue, tokens=max_queue_tokens, seconds=queue_timeout),
            max_body_bytes=parse_bytes(max_body),
            tool_parser=tool_parser,
            ui=ui,
            allow_runtime_lora=allow_runtime_lora,
            metrics_alias=tuple(metrics_alias or ()),
            reference=Reference.load(monitor) if monitor is not None else None,
            monitor=MonitorConfig(window=monitor_window),
        )
        if role is not None:
            if device not in ("auto", "cpu"):
                raise ConfigError(f"--role {role} runs on the CPU; leave --device {device} out.")
            device = "cpu"
        where, loras = resolve_device(device), _named(lora or [])
        chosen = resolve_dtype(dtype, where)

        def load(kind: type[LLM] = LLM) -> LLM:
            return kind(
                model,
                dtype=chosen,
                device=where,
                adapter=adapter,
                loras=loras,
                max_loras=max_loras,
                max_batch=max_batch,
                max_context=max_context,
                max_batched_tokens=max_batched_tokens,
                kv_cache_memory=kv_cache_memory,
                block_size=block_size,
                prefix_caching=prefix_caching,
                aging=aging,
                speculate=speculate,
                kv_policy=kv_policy,
                kv_budget=kv_budget,
                locret_heads=locret_heads,
            )

        if role is None:
            for option, given in (
                ("--worker", worker),
                ("--policy", policy != "mixed_pool"),
                ("--layerwise-from", layerwise_from != 512),
                ("--kv-checksum", kv_checksum),
                ("--kv-connector", kv_connector != "auto"),
            ):
                if given:
                    raise ConfigError(f"{option} is for split phases; it goes with --role.")
            server = ApiServer(config, load)
        else:
            from sharpen.serve.split.server import make_server

            if role == "router" and loras:
                raise ConfigError("--lora goes to the workers; a router has the adapters of its.")
            server = make_server(
                role,
                config,
                model,
                load,
                workers=worker or (),
                policy=policy,
                threshold=layerwise_from,
                checksum=kv_checksum,
                connector=kv_connector,
            )
        console = error_console()
        if host not in ("127.0.0.1", "::1", "localhost") and not keys:
            console.print(
                f"[bold yellow]warning:[/] anyone who reaches {host} can use this server. "
                "Set a key with --api-key."
            )
        if not flags.quiet and not flags.as_json:
            console.print(f"loading {shown} ...")

        def ready() -> None:
            if flags.as_json:
                line = {"url": server.url, "pid": os.getpid(), "model": shown}
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            else:
                console.print(f"serving {shown} at {server.url}/v1  (stop with Ctrl-C)")

        server.run(ready)
        raise typer.Exit(0)  # its one line of output was printed when the model was ready
