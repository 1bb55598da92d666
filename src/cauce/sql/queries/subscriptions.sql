-- The subscriptions of a group, with those that were removed, and their version; one row with nulls if there are none.
-- Index   grupos_pkey, suscripciones_pkey
select g.version, s.origen, s.tipo, s.suscriptor, s.aplicacion, s.retirada_en
  from cauce.grupos g left join cauce.suscripciones s on s.grupo = g.grupo
 where g.grupo = %(grupo)s
