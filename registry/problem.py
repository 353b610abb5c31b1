"""Errors as the OCI Distribution API 1.1 writes them: `{"errors": [{"code", "message", "detail"}]}` with the status that belongs to each."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from host.core.errors import DigestMismatch, HostFault, OciRefused, SnapcountError, StorageFull, TooLarge, UntrustedInput, UsageError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
CHALLENGE = {"WWW-Authenticate": 'Basic realm="snapcount", charset="UTF-8"'}  # RFC 7617
# OCI Distribution Specification 1.1, "Error Codes" and the table of endpoints.
STATUS = {
    "BLOB_UNKNOWN": 404, "BLOB_UPLOAD_INVALID": 400, "BLOB_UPLOAD_UNKNOWN": 404, "DENIED": 403, "DIGEST_INVALID": 400, "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400, "MANIFEST_UNKNOWN": 404, "NAME_INVALID": 400, "NAME_UNKNOWN": 404, "SIZE_INVALID": 400, "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401, "UNSUPPORTED": 405,
}  # fmt: skip


def refusal(code: str, message: str, status: int = 0) -> OciRefused:
    """The error with this code of the specification, and the status of its table unless another is given."""
    return OciRefused(message, code, status or STATUS[code])


def answered(handler: Handler) -> Handler:
    """The handler, with every error that it raises turned into an answer of the specification's shape."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            response = await handler(request)
        except SnapcountError as error:
            status, code = _status_and_code(error)
            response = problem(status, code, str(error))
        except (ConnectionError, asyncio.IncompleteReadError):
            response = problem(400, "BLOB_UPLOAD_INVALID", "the request broke off")  # nobody reads it, but it ends here
        if not response.prepared:
            response.headers.update(API_VERSION)
        return response

    return answer


def problem(status: int, code: str, message: str) -> web.Response:
    """An error as an answer. What was sent too slowly or is too much is not read to its end: the connection closes."""
    response = web.json_response({"errors": [{"code": code, "message": message, "detail": None}]}, status=status)
    if status == 401:
        response.headers.update(CHALLENGE)
    if status in (408, 413):
        response.force_close()
    return response


def _status_and_code(error: SnapcountError) -> tuple[int, str]:
    match error:
        case OciRefused():
            return error.status, error.oci_code
        case TooLarge():
            return 413, "SIZE_INVALID"
        case DigestMismatch():
            return 400, "DIGEST_INVALID"
        case StorageFull():  # the specification has no code for a fault of the registry; this is what Docker's registry says
            return 507, "UNAVAILABLE"
        case HostFault():
            return 503, "UNAVAILABLE"
        case UntrustedInput() | UsageError():
            return 400, "MANIFEST_INVALID"
        case _:
            return 400, "UNSUPPORTED"
