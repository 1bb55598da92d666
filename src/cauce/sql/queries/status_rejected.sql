-- How many refused deliveries are in the quarantine, counted up to `tope`, and when the newest arrived.
-- Index   rechazados_pkey, backward
select count(*) rechazados, max(q.recibido_en) ultimo_en
  from (select r.id, r.recibido_en from cauce.rechazados r order by r.id desc limit %(tope)s) q
