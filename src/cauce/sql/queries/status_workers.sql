-- The workers, and those that disappeared within the last hour; `vivo`: it was seen in the last `segundos`.
-- Order   the longest running first
select p.trabajador, p.grupos, p.maquina, p.pid, p.iniciado_en, p.visto_en,
       p.perdido_en is null and p.visto_en > clock_timestamp() - make_interval(secs => %(segundos)s) vivo
  from cauce.presencia p
 order by p.iniciado_en, p.trabajador
