"""The files of finished reports, served so that nothing in them can act in the app's name.

Every page comes with a policy that puts it into a sandbox: an origin of its own, no cookies, no forms, only the
report's own script. An address holds a token that the app tells to those who may use it; a page in a sandbox sends no
cookies, so that none could be asked for.
"""

from __future__ import annotations

import hmac
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import attrib
from app.report_folder import ReportFolder

PREFIX = "report-files"
SANDBOX = "allow-scripts allow-downloads"
_HEADERS = {
    "Content-Security-Policy": f"sandbox {SANDBOX}; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}
_CHUNK = 2**20


def address(folder: ReportFolder, name: str, path: str) -> str:
    """Where a file of a report is, from the app's page."""
    return f"{PREFIX}/{folder.token(name)}/{name}/{path}"


def routes(folder: ReportFolder) -> list[Route]:
    """/report-files/TOKEN/NAME/FILE, and /report-files/TOKEN/NAME/NAME.zip: all of it."""

    def serve(request: Request) -> Response:
        token, name, path = (request.path_params[key] for key in ("token", "name", "path"))
        if not hmac.compare_digest(token.encode(), folder.token(name).encode()):
            return _absent()
        try:
            if path == f"{name}.zip":
                return _zip(folder, name)
            file = folder.file(name, path)
        except (attrib.InputError, ValueError, OSError):  # ValueError: a null byte
            return _absent()
        if file is None:
            return _absent()
        saved = None if file.suffix == ".html" else f"{name}-{file.name}"
        return FileResponse(file, headers=_HEADERS, filename=saved)

    return [Route(f"/{PREFIX}/{{token}}/{{name}}/{{path:path}}", serve, methods=["GET"])]


def zipped(folder: Path, inside: str) -> Iterator[bytes]:
    """A zip of what may be served of the folder, made as it is read."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(p for p in folder.rglob("[!.]*") if p.is_file() and not p.is_symlink()):
            with path.open("rb") as file, archive.open(f"{inside}/{path.relative_to(folder)}", "w") as entry:
                while chunk := file.read(_CHUNK):
                    entry.write(chunk)
                    yield sink.taken()
            yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """A file to write to whose content is taken away piece by piece."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        piece = bytes(content)  # type: ignore[call-overload]
        self._held += piece
        return len(piece)

    def taken(self) -> bytes:
        piece, self._held = bytes(self._held), bytearray()
        return piece


def _zip(folder: ReportFolder, name: str) -> Response:
    if not folder.get(name).finished:
        return _absent()
    headers = {**_HEADERS, "Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(zipped(folder.report(name), name), media_type="application/zip", headers=headers)


def _absent() -> Response:
    return PlainTextResponse("there is no such file", 404, headers=_HEADERS)
