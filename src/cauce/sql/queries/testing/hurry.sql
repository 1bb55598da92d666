-- Makes the deliveries of groups that wait for their time due at once, except those in hand.
update cauce.entregas set proximo_en = clock_timestamp()
 where grupo = any (%(grupos)s) and estado = 'pendiente'
   and proximo_en > clock_timestamp() and proximo_en < 'infinity'
