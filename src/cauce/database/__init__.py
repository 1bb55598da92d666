"""The database: one function here for each thing that is asked of PostgreSQL, and what its refusals mean.

The SQL itself is in ``cauce.sql``. Nothing here waits, retries or decides; the engine, the web and the command line do.
Operators may call ``operations`` and ``quarantine``.
"""
