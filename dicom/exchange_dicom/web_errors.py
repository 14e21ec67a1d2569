"""What the web door answers in place of what was asked for (PS3.18 section 8.5, RFC 9457).

A problem document holds the words of the error and nothing else: no trace, no patient data.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any

import orjson
from anyio import to_thread
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from exchange.errors import Damaged, ExchangeError, Gone, NotAuthenticated, Unavailable
from exchange_dicom import status
from exchange_dicom.media_types import NotAcceptable, UnsupportedMediaType

log = logging.getLogger(__name__)

RETRY_AFTER = 5
"""Seconds after which what does not answer may be asked again."""


def of(error: ExchangeError) -> status.Web:
    """What the error, or what it is a kind of, is called in DICOMweb."""
    return next(status.WEB[kind] for kind in type(error).__mro__ if kind in status.WEB)


def problem(http: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A problem document (RFC 9457)."""
    body = {"title": HTTPStatus(http).phrase, "status": http, "detail": detail}
    return Response(orjson.dumps(body), http, headers, "application/problem+json")


def unexpected(error: BaseException) -> None:
    """Log where an error came from, but not its message, which may quote what was sent."""
    lines = "".join(traceback.format_tb(error.__traceback__))
    log.error("unexpected %s\n%s", type(error).__name__, lines)


class SilentSender(ClientDisconnect):
    """The rest of a body does not come: what was received whole of it is kept (408)."""


class NotSatisfiable(Exception):
    """No byte of the range that was asked for is there (416). `size` is what there is."""

    def __init__(self, size: int) -> None:
        super().__init__(f"there are {size} bytes")
        self.size = size


class Route(APIRoute):
    """A route of the web door, which answers for every error itself."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors turned into answers.

        It calls the endpoint with the request and the parameters of the path, which are text: what
        else FastAPI could find out for it takes longer than some answers do.
        """
        endpoint = self.endpoint
        waits = iscoroutinefunction(endpoint)

        async def answer(request: Request) -> Response:
            try:
                called = partial(endpoint, request, **request.path_params)
                answered: Response = await (called() if waits else to_thread.run_sync(called))
                return answered
            except Damaged as error:  # which asking again does not mend
                return problem(of(error).http, str(error))
            except Unavailable as error:
                return problem(of(error).http, str(error), {"Retry-After": str(RETRY_AFTER)})
            except NotAuthenticated as error:
                return problem(of(error).http, str(error), {"WWW-Authenticate": "Bearer"})
            except Gone as error:
                return problem(410, str(error))
            except ExchangeError as error:
                return problem(of(error).http, str(error))
            except NotAcceptable as error:
                return problem(406, str(error))
            except UnsupportedMediaType as error:
                return problem(415, str(error))
            except NotSatisfiable as error:
                return problem(416, str(error), {"Content-Range": f"bytes */{error.size}"})
            except SilentSender:
                detail = "the rest of the request did not come; what was received whole is kept"
                return problem(408, detail, {"Connection": "close"})
            except ClientDisconnect:
                return problem(400, "the request was broken off")
            except Exception as error:
                unexpected(error)
                return problem(500, "the exchange failed; the operators' log says where")

        return answer
