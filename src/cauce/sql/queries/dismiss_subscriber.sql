-- Dismisses a subscriber's failed or waiting deliveries, among the next `maximo` deliveries after the event `desde`.
-- Index   entregas_pkey
select descartadas, hasta from cauce.descartar_suscriptor(%(suscriptor)s, %(grupo)s, %(desde)s, %(maximo)s)
