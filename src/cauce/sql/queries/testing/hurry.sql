-- Makes the waiting deliveries of groups due now, except those that a worker holds.
update cauce.entregas set proximo_en = clock_timestamp()
 where grupo = any (%(grupos)s) and estado = 'pendiente'
   and proximo_en > clock_timestamp() and proximo_en < 'infinity'
