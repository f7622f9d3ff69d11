"""The addresses of the studio: each parses, calls, and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tlora_cli.foundation.errors import UserError, no_room
from tlora_cli.foundation.pages.templates import render
from tlora_cli.studio.drafts import find_draft
from tlora_cli.studio.exports import FOLDER as EXPORTS
from tlora_cli.studio.jobs import told_error
from tlora_cli.studio.security import Gate, Guard
from tlora_cli.studio.showing import SAMPLES
from tlora_cli.studio.shown_pictures import shown_mask, shown_photo
from tlora_cli.studio.uploads import TooLarge, take_mask, take_photo, values_of
from tlora_cli.studio.works import Works
from tlora_cli.training.kept_images import kept_pictures

HERE = Path(__file__).parent
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""Policy of a run's report, which is one file and says the same itself."""
KINDS = {".js": "text/javascript", ".css": "text/css"}

Answer = Callable[[Request], Awaitable[Response]]


def make_app(works: Works, gate: Gate) -> Guard:
    """Return the studio as an ASGI application.

    Args:
        works: what is in it.
        gate: who may ask.
    """
    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/{file:str}", _own_file),
            *(_get(path, answer) for path, answer in _reads(works).items()),
            *(_post(path, answer) for path, answer in _changes(works).items()),
        ]
    )
    return Guard(app, gate)


def _get(path: str, answer: Answer) -> Route:
    return Route(path, _explained(answer), methods=["GET"])


def _post(path: str, answer: Answer) -> Route:
    return Route(path, _explained(answer), methods=["POST"])


def _explained(answer: Answer) -> Answer:
    """Turn what the user can mend into a message for the page."""

    async def run(request: Request) -> Response:
        try:
            return await answer(request)
        except TooLarge as error:
            return JSONResponse(told_error(error), 413, {"Connection": "close"})
        except UserError as error:
            return JSONResponse(told_error(error), 400)
        except (OSError, MemoryError) as error:
            short = no_room(error)
            if short is None:
                raise
            return JSONResponse(told_error(short), 507)

    return run


# --- the page -----------------------------------------------------------------------------------


async def _page(request: Request) -> Response:
    return HTMLResponse(_text_of_page())


@cache
def _text_of_page() -> str:
    return render("studio/page.html.jinja", title="tlora studio")


async def _own_file(request: Request) -> Response:
    """Answer with a script or style sheet of the page."""
    name = request.path_params["file"]
    places = {one.name: one for one in HERE.iterdir() if one.suffix in KINDS}
    places["style.css"] = HERE.parent / "foundation" / "pages" / "style.css"
    if name not in places:
        return Response(status_code=404)
    kind = KINDS[places[name].suffix]
    return FileResponse(places[name], media_type=kind)


# --- what is looked at ----------------------------------------------------------------------------


def _reads(works: Works) -> dict[str, Answer]:
    async def state(request: Request) -> Response:
        name = request.query_params.get("name", "")
        return JSONResponse(await run_in_threadpool(works.state, name))

    async def photo(request: Request) -> Response:
        draft = find_draft(request.path_params["name"])
        if draft is None:
            return Response(status_code=404)
        whole = request.query_params.get("whole") == "1"
        file = draft.folder / draft.original if whole else draft.photo
        return _png(await run_in_threadpool(shown_photo, file))

    async def mask(request: Request) -> Response:
        draft = find_draft(request.path_params["name"])
        file = draft.shown_mask if draft else None
        if file is None:
            return Response(status_code=404)
        return _png(await run_in_threadpool(shown_mask, file))

    async def preview(request: Request) -> Response:
        given = request.path_params
        folder = works.folder(given["name"]) / "previews"
        return _file_in(folder, f"{given['step']}/{given['file']}", ".png")

    async def learned(request: Request) -> Response:
        given = request.path_params
        folder = works.folder(given["name"]) / "training_pictures"
        kept = kept_pictures(folder)
        return FileResponse(kept[0][0]) if kept else Response(status_code=404)

    async def drawing(request: Request) -> Response:
        given = request.path_params
        works.folder(given["name"])
        return _file_in(SAMPLES / given["name"], given["file"], ".png")

    async def export(request: Request) -> Response:
        return _file_in(EXPORTS, request.path_params["path"], "", download=True)

    async def report(request: Request) -> Response:
        file = works.folder(request.path_params["name"]) / "report.html"
        if not file.is_file():
            return Response(status_code=404)
        return FileResponse(file, headers={"Content-Security-Policy": REPORT_POLICY})

    return {
        "/api/state": state,
        "/photo/{name}": photo,
        "/mask/{name}": mask,
        "/preview/{name}/{step}/{file}": preview,
        "/learned/{name}": learned,
        "/drawing/{name}/{file}": drawing,
        "/exports/{path:path}": export,
        "/report/{name}": report,
    }


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png")


def _file_in(folder: Path, path: str, suffix: str, download: bool = False) -> Response:
    """Answer with a file that lies in a folder, links followed; nothing else is shown."""
    file = (folder / path).resolve()
    inside = file.is_relative_to(folder.resolve()) and file.is_file()
    if not inside or (suffix and file.suffix != suffix):
        return Response(status_code=404)
    if download:
        return FileResponse(file, filename=file.name, media_type="application/octet-stream")
    return FileResponse(file)


# --- what is done ---------------------------------------------------------------------------------


def _changes(works: Works) -> dict[str, Answer]:
    def simple(act: Callable[..., Any], *keys: str) -> Answer:
        """Return what calls a function of the work's name, and of its values if it takes them."""

        async def run(request: Request) -> Response:
            values = await values_of(request)
            name = request.path_params["name"]
            given = [values] if keys == ("values",) else [str(values.get(key, "")) for key in keys]
            made = await run_in_threadpool(act, name, *given)
            return JSONResponse({"name": made} if isinstance(made, str) else {})

        return run

    async def photo(request: Request) -> Response:
        draft = await take_photo(request)
        return JSONResponse({"name": draft.name})

    async def paint(request: Request) -> Response:
        name = request.path_params["name"]
        await run_in_threadpool(works.require_open, name)
        await take_mask(request, name)
        return JSONResponse({})

    async def stop_job(request: Request) -> Response:
        await run_in_threadpool(works.jobs.stop)
        return JSONResponse({})

    return {
        "/api/photo": photo,
        "/api/stop-job": stop_job,
        "/api/{name}/paint": paint,
        "/api/{name}/change": simple(works.change, "values"),
        "/api/{name}/find-mask": simple(works.find_mask),
        "/api/{name}/again": simple(works.again),
        "/api/{name}/plan": simple(works.plan),
        "/api/{name}/recipe": simple(works.write_recipe),
        "/api/{name}/start": simple(works.start),
        "/api/{name}/stop": simple(works.stop),
        "/api/{name}/resume": simple(works.resume),
        "/api/{name}/draw": simple(works.draw, "values"),
        "/api/{name}/export": simple(works.export, "target"),
    }
