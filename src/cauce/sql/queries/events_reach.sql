-- The oldest id that `events` looked at; null if there are no older events.
-- Index   eventos_pkey, backward
select (array_agg(q.id))[%(alcance)s::integer] from (
    select e.id from cauce.eventos e
     where e.id < coalesce(%(antes)s::bigint, 9223372036854775807) order by e.id desc limit %(alcance)s + 1) q
having count(*) > %(alcance)s
