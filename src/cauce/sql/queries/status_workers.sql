-- The workers that have said that they are alive within the hour; `vivo` if they said so in the last `segundos`.
-- Order   the longest running first
select t.trabajador, t.grupos, t.maquina, t.pid, t.iniciado_en, t.visto_en,
       t.visto_en > clock_timestamp() - make_interval(secs => %(segundos)s) vivo
  from cauce.trabajadores t
 order by t.iniciado_en, t.trabajador
