-- The failed attempts of groups since the failure `desde`.
-- Order   oldest first
select f.evento, e.origen, e.tipo, f.grupo, f.suscriptor, f.intento, f.error, c.traza
  from cauce.fallos f join cauce.eventos e on e.id = f.evento left join cauce.causas c on c.huella = f.huella
 where f.id > %(desde)s and not f.descartada and f.grupo = any (%(grupos)s)
 order by f.id
