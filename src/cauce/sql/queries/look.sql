-- One snapshot, and plans that read indexes row by row, so that a limit stops them. Without these settings the planner may
-- scan a whole table: one that was never analyzed, or one where it expects many matches.
set transaction isolation level repeatable read read only;
set local enable_seqscan = off;
set local enable_bitmapscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local jit = off
