-- The outstanding and the dead deliveries of one event, with the leases that hold them. An event that a worker holds for
-- the first time has no row in entregas: it appears as one delivery to all subscribers ('*').
-- Order   group, subscriber
-- Index   entregas_pkey; a full scan of lotes, which has one row for each batch in progress
select d.grupo, d.suscriptor, d.estado, d.intentos + (m.lote is not null)::integer intentos, d.caidas,
       case when m.lote is null then d.proximo_en else m.tomado_en end proximo_en, d.error, m.lote, m.trabajador, m.arriendo_hasta
  from cauce.entregas d
  left join cauce.en_mano m on m.evento = d.evento and m.grupo = d.grupo and m.suscriptor = d.suscriptor
 where d.evento = %(id)s
union all
select l.grupo, '*', 'pendiente', 1, 0, l.tomado_en, null, l.id, l.trabajador, l.arriendo_hasta
  from cauce.lotes l where %(id)s = any (l.ids)
 order by grupo, suscriptor
