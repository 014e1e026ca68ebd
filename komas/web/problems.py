"""Every error of the REST edge is a problem document (RFC 9457); nothing a client sends is a 500."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from quart import Response

from komas.errors import CallerError, CallerErrors, Cause, KeyReused, VenueError
from komas.model.codec import encode

MEDIA_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """One thing that was wrong with what the client sent."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was wrong (RFC 9457), field by field where it was what a client sent.

    ``ignored`` are parameters that this call does not have.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    ignored: tuple[str, ...] = ()


class ProblemError(Exception):
    """An answer that is an error; raised by a view, rendered by ``respond()``."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[FieldError] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}


def invalid(errors: Iterable[FieldError]) -> ProblemError:
    """400 with a row for each field that was wrong."""
    rows = tuple(errors)
    return ProblemError(HTTPStatus.BAD_REQUEST, "; ".join(row.message for row in rows), errors=rows)


def from_caller(error: CallerError) -> ProblemError:
    """400 for what the caller can mend; 422 for a key used before (draft-ietf-httpapi-idempotency-key, 2.7)."""
    status = HTTPStatus.UNPROCESSABLE_ENTITY if isinstance(error, KeyReused) else HTTPStatus.BAD_REQUEST
    several = error.fields if isinstance(error, CallerErrors) else ((error.field, str(error)),)
    rows = [FieldError(field, message) for field, message in several if field is not None]
    return ProblemError(status, str(error), errors=rows)


def from_venue(error: VenueError) -> ProblemError:
    """502 with the exchange's words, 504 when it said nothing."""
    status = HTTPStatus.GATEWAY_TIMEOUT if error.cause is Cause.SILENT else HTTPStatus.BAD_GATEWAY
    return ProblemError(status, str(error))


def respond(problem: ProblemError, ignored: tuple[str, ...] = ()) -> Response:
    """Answer with a problem document; it names parameters that were ignored, for they may be why."""
    body = document(problem.status, problem.detail, problem.errors, ignored)
    return Response(body, problem.status, {"Content-Type": MEDIA_TYPE, **problem.headers})


def document(status: int, detail: str, errors: tuple[FieldError, ...] = (), ignored: tuple[str, ...] = ()) -> bytes:
    """Render a problem document."""
    title = HTTPStatus(status).phrase
    return encode(
        Problem(type="about:blank", title=title, status=int(status), detail=detail, errors=errors, ignored=ignored)
    )
