"""What the HTTP application serves, as OpenAPI 3.1 tells it: each door tells of itself.

FastAPI's own description would know the paths and nothing else: the doors read their requests
themselves, since the standards that they follow ask for more than types of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

Json = dict[str, Any]

_STRING: Json = {"type": "string"}


def document(paths: Sequence[Mapping[str, Any]], schemas: Mapping[str, Any]) -> Json:
    """The OpenAPI document of doors with these Paths Objects, and of what stands beside them."""
    every: Json = {}
    for one in (*paths, _OWN):
        every |= one
    return {
        "openapi": "3.1.0",
        "info": {"title": "Imaging exchange", "version": version("imaging-exchange")},
        "paths": every,
        "security": [{"bearer": []}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
            "schemas": dict(schemas),
        },
    }


def _json(**properties: Json) -> Json:
    schema = {"type": "object", "required": [*properties], "properties": properties}
    return {"application/json": {"schema": schema}}


def _refusal(words: str) -> Json:
    return {"description": words, "content": _json(error=_STRING, error_description=_STRING)}


_STATUS = _json(status=_STRING)

_OWN: Mapping[str, Any] = {
    "/oauth/token": {
        "post": {
            "operationId": "token",
            "tags": ["Sign in"],
            "summary": "An access token for a name and its password (RFC 6749 section 4.4)",
            "security": [{"basic": []}],
            "requestBody": {
                "required": True,
                "content": {
                    "application/x-www-form-urlencoded": {
                        "schema": {
                            "type": "object",
                            "required": ["grant_type"],
                            "properties": {
                                "grant_type": {"const": "client_credentials"},
                                "purpose_of_use": {"enum": ["TREAT", "HOPERAT", "PUBHLTH"]},
                                "client_id": _STRING,
                                "client_secret": _STRING,
                            },
                            "additionalProperties": False,
                        }
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "The token.",
                    "content": _json(
                        access_token=_STRING, token_type=_STRING, expires_in={"type": "integer"}
                    ),
                },
                "400": _refusal("The request cannot be served."),
                "401": _refusal("The name or the password is wrong."),
                "413": {"description": "The body is too long."},
                "429": _refusal("Too many wrong passwords."),
                "503": _refusal("A part does not answer now."),
            },
        }
    },
    "/.well-known/jwks.json": {
        "get": {
            "operationId": "jwks",
            "tags": ["Sign in"],
            "security": [],
            "responses": {
                "200": {
                    "description": "The keys that verify tokens (RFC 7517).",
                    "content": _json(keys={"type": "array", "items": {"type": "object"}}),
                }
            },
        }
    },
    "/health": {
        "get": {
            "operationId": "health",
            "tags": ["Operations"],
            "security": [],
            "responses": {"200": {"description": "It answers.", "content": _STATUS}},
        }
    },
    "/ready": {
        "get": {
            "operationId": "ready",
            "tags": ["Operations"],
            "security": [],
            "responses": {
                "200": {"description": "Requests may be sent.", "content": _STATUS},
                "503": {"description": "A part does not answer.", "content": _STATUS},
            },
        }
    },
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "tags": ["Operations"],
            "security": [],
            "responses": {
                "200": {"description": "For Prometheus.", "content": {"text/plain": {}}},
                "403": {"description": "Not from this address.", "content": {"text/plain": {}}},
            },
        }
    },
}
