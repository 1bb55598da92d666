-- The last `limite` failures of one event: failed attempts, each with the traceback of its cause, and dismissals.
-- Order   oldest first
-- Index   fallos_evento, backward; causas_pkey
select * from (
    select f.id, f.grupo, f.suscriptor, f.intento, f.error, c.traza, f.trabajador, f.descartada, f.ocurrido_en
      from cauce.fallos f left join cauce.causas c on c.huella = f.huella where f.evento = %(id)s order by f.id desc limit %(limite)s) f
 order by f.id
