"""The page's server: read-only answers in JSON about studies and runs, and the page itself.

Everything it needs it serves itself; nothing is fetched from elsewhere. It answers only to the host
names it was started for, so that no web site can read it through a visitor's browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import plotly
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sharpen._version import __version__
from sharpen.core.errors import DataError, DependencyNotInstalled, SharpenError
from sharpen.core.store import open_store
from sharpen.core.study_compare import compare_studies
from sharpen.core.study_queries import StudyQueries
from sharpen.core.study_view import StudyView, load_study
from sharpen.ui.runs import find_runs, find_stores, read_run, read_samples

__all__ = ["make_app"]

_STATIC = Path(__file__).parent / "static"
_FILES = {"": "index.html", "app.js": "app.js", "charts.js": "charts.js", "style.css": "style.css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self' data:"
)
_LARGEST_COMPARED = 20_000


def make_app(
    stores: Sequence[str] = (), runs: Path | None = None, *, hosts: Sequence[str] = ("127.0.0.1",)
) -> FastAPI:
    """The application.

    Args:
        stores: URLs or files; those that do not exist yet are shown once they do.
        runs: folder of run folders; studies in it are shown, too.
        hosts: names by which it may be asked.
    """
    app = FastAPI(title="Sharpen", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=[*hosts, "localhost", "127.0.0.1", "[::1]"]
    )

    @app.middleware("http")
    async def guard(request: Request, forward: Any) -> Response:
        response: Response = await forward(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response

    @app.exception_handler(SharpenError)
    async def explain(request: Request, error: SharpenError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=409)

    def all_stores() -> list[str]:
        found = list(stores)
        if runs is not None:
            found += [str(path) for path in find_stores(runs) if str(path) not in found]
        return found

    def opened(store: int, name: str) -> StudyView:
        known = all_stores()
        if not 0 <= store < len(known):
            raise HTTPException(404, "there is no such store")
        if not _exists(known[store]):
            raise HTTPException(404, "the store does not exist yet")
        return _study(known[store], name, _stamp(known[store]))

    @app.get("/api/studies")
    def studies() -> list[dict[str, Any]]:
        rows = []
        for index, url in enumerate(all_stores()):
            if not _exists(url):
                continue
            for record in open_store(url, create=False).studies():
                rows.append(
                    {
                        "store": index,
                        "url": url,
                        "name": record.name,
                        "created_s": record.created_s,
                        "objectives": {o["name"]: o["direction"] for o in record.objectives},
                        "trials": record.counts,
                        "optimizer": record.spec.get("optimizer"),
                    }
                )
        return sorted(rows, key=lambda row: -float(row["created_s"]))

    @app.get("/api/studies/{store}/{name}")
    def study(store: int, name: str) -> dict[str, Any]:
        view = opened(store, name)
        queries = StudyQueries(view)
        return {
            "name": view.name,
            "version": queries.version(),
            "counts": queries.counts(),
            "objectives": [asdict(o) for o in view.objectives],
            "constraints": [str(c) for c in view.constraints],
            "space": view.space.to_dict()["parameters"],
            "fidelity": None if view.fidelity is None else asdict(view.fidelity),
        }

    @app.get("/api/studies/{store}/{name}/version")
    def version(store: int, name: str) -> dict[str, str]:
        return {"version": StudyQueries(opened(store, name)).version()}

    @app.get("/api/studies/{store}/{name}/history")
    def history(store: int, name: str) -> dict[str, Any]:
        view = opened(store, name)
        return {o.name: StudyQueries(view).history(o) for o in view.objectives}

    @app.get("/api/studies/{store}/{name}/sample")
    def sample(
        store: int, name: str, points: int = Query(1000, ge=1, le=5000)
    ) -> list[dict[str, Any]]:
        return StudyQueries(opened(store, name)).sample(points=points)

    @app.get("/api/studies/{store}/{name}/timeline")
    def timeline(store: int, name: str) -> list[dict[str, Any]]:
        return StudyQueries(opened(store, name)).timeline()

    @app.get("/api/studies/{store}/{name}/importance")
    def importance(store: int, name: str, objective: str | None = None) -> dict[str, Any]:
        view = opened(store, name)
        named = {o.name: o for o in view.objectives}
        chosen = named.get(objective or view.objectives[0].name)
        if chosen is None:
            raise HTTPException(404, "there is no such objective")
        try:
            found = view.importance_of(StudyQueries(view).as_trials(points=1000), chosen, trees=32)
        except (DataError, DependencyNotInstalled) as error:
            return {"why": str(error)}
        return {
            "parameters": found.parameters,
            "pairs": [{"of": list(pair), "share": s} for pair, s in found.pairs.items()],
            "fit": found.fit,
            "trials": found.trials,
        }

    @app.get("/api/studies/{store}/{name}/trials")
    def trials(
        store: int,
        name: str,
        offset: int = Query(0, ge=0),
        limit: int = Query(100, ge=1, le=500),
        state: str | None = None,
    ) -> list[dict[str, Any]]:
        return StudyQueries(opened(store, name)).trials(offset=offset, limit=limit, state=state)

    @app.get("/api/studies/{store}/{name}/trials/{number}")
    def trial(store: int, name: str, number: int) -> dict[str, Any]:
        found = StudyQueries(opened(store, name)).trial(number)
        if found is None:
            raise HTTPException(404, "there is no such trial")
        return found

    @app.get("/api/compare")
    def compare(of: list[str] = Query(min_length=2, max_length=8)) -> dict[str, Any]:  # noqa: B008
        views = []
        for text in of:
            store, _, name = text.partition("/")
            if not store.isdigit():
                raise HTTPException(422, "of takes STORE/NAME")
            view = opened(int(store), name)
            if sum(StudyQueries(view).counts().values()) > _LARGEST_COMPARED:
                raise HTTPException(422, f"'{name}' is too large to be compared here")
            views.append(view)
        curves = [
            {
                "name": view.name,
                **StudyQueries(view).history(view.objectives[0]),
            }
            for view in views
        ]
        return {**compare_studies(views), "curves": curves}

    @app.get("/api/runs")
    def run_list() -> list[dict[str, Any]]:
        return [] if runs is None else find_runs(runs)

    @app.get("/api/samples")
    def samples(run: str, stage: str, step: int) -> list[dict[str, Any]]:
        found = None if runs is None else read_samples(runs, run, stage, step)
        if found is None:
            raise HTTPException(404, "there is no such run or stage")
        return found

    @app.get("/api/runs/{run:path}")
    def one_run(run: str) -> dict[str, Any]:
        found = None if runs is None else read_run(runs, run)
        if found is None:
            raise HTTPException(404, "there is no such run")
        return found

    @app.get("/plotly.js", include_in_schema=False)
    def plotly_js() -> FileResponse:
        path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        return FileResponse(path, media_type="text/javascript")

    @app.get("/", include_in_schema=False)
    @app.get("/{name}", include_in_schema=False)
    def page(name: str = "") -> FileResponse:
        if name not in _FILES:
            raise HTTPException(404, "there is no such page")
        return FileResponse(_STATIC / _FILES[name])

    return app


def _exists(url: str) -> bool:
    if url.startswith("postgres"):
        return True
    return Path(url.removeprefix("sqlite:///")).is_file()


def _stamp(url: str) -> float:
    """When a store's file was made, so that one that was replaced is opened anew."""
    return 0.0 if url.startswith("postgres") else Path(url.removeprefix("sqlite:///")).stat().st_ino


@lru_cache(maxsize=64)
def _study(url: str, name: str, stamp: float) -> StudyView:
    return load_study(url, name)
