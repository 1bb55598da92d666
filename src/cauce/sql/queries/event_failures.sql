-- The failed attempts of one event, the last `limite` of them.
-- Order   oldest first
-- Index   fallos_evento, backward
select * from (
    select f.id, f.grupo, f.suscriptor, f.intento, f.error, f.traza, f.trabajador, f.ocurrido_en
      from cauce.fallos f where f.evento = %(id)s order by f.id desc limit %(limite)s) f
 order by f.id
