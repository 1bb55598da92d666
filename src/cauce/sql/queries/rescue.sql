-- Takes expired batches over; how many, and whether anybody held a lease: where nobody does, none expires before it has
-- been taken and has run out.
-- Index   lotes is read whole, it has a row for every batch in hand
select cauce.rescatar(%(limite_caidas)s), exists (select from cauce.lotes)
