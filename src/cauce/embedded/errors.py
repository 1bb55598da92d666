"""The one error of the embedded server."""


class EmbeddedError(Exception):
    """The embedded PostgreSQL could not be started, used or stopped; the message says what to do."""
