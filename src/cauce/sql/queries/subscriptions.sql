-- The subscriptions of a group, removed ones included, and their version; a group without any gives one row with nulls.
-- Index   grupos_pkey, suscripciones_pkey
select g.version, s.origen, s.tipo, s.suscriptor, s.aplicacion, s.retirada_en
  from cauce.grupos g left join cauce.suscripciones s on s.grupo = g.grupo
 where g.grupo = %(grupo)s
