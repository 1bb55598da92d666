-- Takes over expired batches. Returns how many, and whether there was any lease: if not, none can expire before a new
-- one has run its full time.
-- Index   a full scan of lotes, which has one row for each batch in progress
select cauce.rescatar(%(limite_caidas)s), exists (select from cauce.lotes)
