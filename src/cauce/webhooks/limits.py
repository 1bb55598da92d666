"""Every bound that the verifiers put on what a stranger may send, in one place.

Whoever knows the URL of an inbox may post anything to it; these numbers say how much of it is looked at. Each one is
tested at the bound and one past it. The size of the whole body (1 MiB) is the HTTP layer's to hold.
"""

from __future__ import annotations

from typing import Final

MAX_HEADERS: Final = 100
"""Header fields of a request. Providers send about ten, proxies on the way add as many."""

MAX_HEADER_BYTES: Final = 32_768
"""Bytes of all header fields together, names and values. HTTP servers hold them to as much, or to nothing at all."""

MAX_SIGNATURE_HEADER: Final = 4096
"""Characters of a header that takes part in verification. Stripe's, with sixteen signatures, has 1,200."""

MAX_SIGNATURES: Final = 16
"""Signatures in one header. Providers send one per active secret, so two or three while a secret is rotated."""

MAX_STORED_HEADER: Final = 1024
"""Characters kept of a header that is stored beside the event; what is longer is cut."""

MAX_JSON_DEPTH: Final = 100
"""Nested arrays and objects in a body. Far under Python's recursion limit and PostgreSQL's ``max_stack_depth``."""

MAX_NUMBER_DIGITS: Final = 1000
"""Digits of a number written out in full. PostgreSQL's ``numeric`` would hold 131,072, and give back a number that
Python refuses to read (4,300)."""

MAX_FORM_FIELDS: Final = 1000
"""Fields of a form body or of a query string."""

MAX_BATCH: Final = 1000
"""Events in one delivery (Adyen, SendGrid)."""

MAX_ID: Final = 255
"""Characters of ``id_externo``; a provider's longer id is replaced by the hash of what was signed."""

MAX_TIPO: Final = 255
"""Characters of ``tipo``; a longer one is stored as unknown."""
