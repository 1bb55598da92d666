"""The database: one function for each thing Cauce asks of PostgreSQL, and what PostgreSQL's errors mean.

The SQL itself is in ``cauce.sql``. Nothing here waits, retries or decides; the engine, the web and the command line do.
Operators may call ``operations`` and ``quarantine``.
"""
