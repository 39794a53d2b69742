"""``sharpen ui``: studies and runs in the browser."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from sharpen.cli.common import Output, command, error_console, flags

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "ui", example="sharpen ui --store sqlite:///study.db --runs runs")
    def ui(
        store: Annotated[
            list[str] | None,
            typer.Option("--store", help="sqlite:///FILE, postgresql://... or a file; more."),
        ] = None,
        runs: Annotated[
            Path, typer.Option(help="Folder of runs; studies in it are shown, too.")
        ] = Path("runs"),
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8500,
    ) -> Output:
        """Serve a page that shows studies and runs until Ctrl-C or SIGTERM; it changes nothing."""
        from sharpen.core.errors import BusyError, ConfigError, DependencyNotInstalled

        try:
            import uvicorn

            from sharpen.ui.app import make_app
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("sharpen ui", "ui") from None
        if not 0 <= port <= 65535:
            raise ConfigError(f"port={port} must be from 0 to 65535.")
        stores = store or ([] if not Path("study.db").exists() else ["study.db"])
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise BusyError(
                f"cannot listen on {host} port {port}: {error.strerror}. Choose another --port."
            ) from None
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}"
        if flags.as_json:
            sys.stdout.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
            sys.stdout.flush()
        elif not flags.quiet:
            error_console().print(f"showing studies and runs at {url}  (stop with Ctrl-C)")
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(stores, runs, hosts=(host,)), log_level="warning", access_log=False
            )
        )
        server.run(sockets=[listener])
        raise typer.Exit(0)
