"""Every limit of the verifiers on what a stranger may send.

Anyone who knows the URL of an inbox can post anything to it. Each limit is tested at its value and one past it. The
HTTP layer limits the size of the body (1 MiB by default).
"""

from __future__ import annotations

from typing import Final

MAX_HEADERS: Final = 100
"""Header fields of a request. Providers send about ten, proxies on the way add as many more."""

MAX_HEADER_BYTES: Final = 32_768
"""Bytes of all header fields together, names and values. Some HTTP servers have no limit."""

MAX_SIGNATURE_HEADER: Final = 4096
"""Characters of a header that takes part in verification. Stripe's, with sixteen signatures, has 1,200."""

MAX_SIGNATURES: Final = 16
"""Signatures in one header. Providers send one per active secret, so two or three while a secret is rotated."""

MAX_STORED_HEADER: Final = 1024
"""Characters of a header that is stored with the event; the rest is cut."""

MAX_JSON_DEPTH: Final = 100
"""Nested arrays and objects in a body. Far under Python's recursion limit and PostgreSQL's ``max_stack_depth``."""

MAX_NUMBER_DIGITS: Final = 1000
"""Digits of a number written out in full. PostgreSQL's ``numeric`` holds 131,072, but Python refuses to read
more than 4,300."""

MAX_FORM_FIELDS: Final = 1000
"""Fields of a form body or of a query string."""

MAX_BATCH: Final = 1000
"""Events in one delivery (Adyen, SendGrid)."""

MAX_ID: Final = 255
"""Characters of ``id_externo``; a provider's longer id is replaced by the hash of what was signed."""

MAX_TIPO: Final = 255
"""Characters of ``tipo``; a longer one is stored as unknown."""
