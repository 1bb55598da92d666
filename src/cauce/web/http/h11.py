"""Connections read by h11, which comes with uvicorn."""

from __future__ import annotations

from uvicorn.protocols.http.h11_impl import H11Protocol

from cauce.web.http.bounded import Bounded


class BoundedH11(Bounded, H11Protocol):  # pyright: ignore[reportIncompatibleMethodOverride] # as Bounded
    """h11, which bounds what is no body, drops trailers, and reads the body of a request with ``Upgrade`` by itself."""
