-- One snapshot, and plans that walk indexes row by row, so that a limit stops them. Without these settings the planner may
-- read a whole table: one that was never analyzed, or one where it expects matches everywhere.
set transaction isolation level repeatable read read only;
set local enable_seqscan = off;
set local enable_bitmapscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local jit = off
