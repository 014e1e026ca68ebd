"""The API's description."""

from __future__ import annotations


def document() -> dict[str, object]:
    """OpenAPI 3.1."""
    return {"openapi": "3.1.0"}
