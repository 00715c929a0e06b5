"""Errors as OTLP/HTTP words them, for its path: a `google.rpc.Status` in the encoding of the request.

https://opentelemetry.io/docs/specs/otlp/#otlphttp-response says so. An exporter tries again after 429, 502, 503 and 504
only. What is wrong with the data of a request is a 400.
"""

import re
from collections.abc import Mapping

from fastapi import Response
from fastapi.responses import JSONResponse

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_PATH = re.compile(r"/v1/traces/?\Z")
_INVALID, _UNKNOWN = 3, 2
_GRPC_CODES = {401: 16, 403: 7, 404: 5, 409: 10, 413: 8, 429: 8, 500: 13, 503: 14, 504: 4}
"""gRPC's code by HTTP's status."""


def is_otlp_path(path: str) -> bool:
    return _PATH.match(path) is not None


def is_protobuf(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == PROTOBUF


def otlp_error(
    status: int, code: str, detail: str, request_headers: Mapping[str, str], headers: Mapping[str, str]
) -> Response:
    """`code` is the service's own, stable for programs; it begins the message."""
    status = 400 if status == 422 else status
    grpc_code = _GRPC_CODES.get(status, _INVALID if status < 500 else _UNKNOWN)
    message = f"{code}: {detail}"
    if not is_protobuf(request_headers):
        return JSONResponse({"code": grpc_code, "message": message}, status, headers=dict(headers))
    text = message.encode("utf-8", "replace")
    body = b"\x08" + _varint(grpc_code) + b"\x12" + _varint(len(text)) + text
    return Response(body, status, headers=dict(headers), media_type=PROTOBUF)


def _varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
