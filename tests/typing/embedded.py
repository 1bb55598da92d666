"""What type checkers say of the embedded server: a marked line must be an error."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

from cauce.embedded import EmbeddedPostgres

with EmbeddedPostgres(settings={"fsync": "off"}) as server:
    assert_type(server.database("x"), str)
    server.stop("immediate")
    server.stop("smart")  # type: ignore[arg-type]
    server.dsn = "postgresql://elsewhere"  # type: ignore[misc]
