-- Marks the transaction in which handlers run: with the fencing token, and with the event that is handled and its root.
-- The settings end with the transaction. `causa` '?': handlers of several events share it (cauce.causa_actual).
select set_config('cauce.asiento', %(asiento)s, true), set_config('cauce.causa', %(causa)s, true),
       set_config('cauce.correlacion', %(correlacion)s, true)
