-- Gives up what a subscriber has failed at or waits for, among the next `maximo` deliveries after the event `desde`.
-- Index   entregas_pkey
select descartadas, hasta from cauce.descartar_suscriptor(%(suscriptor)s, %(grupo)s, %(desde)s, %(maximo)s)
