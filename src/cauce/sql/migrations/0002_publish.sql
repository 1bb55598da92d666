-- Publishing: one INSERT in the publisher's own transaction, through these functions or written by hand.

-- The highest transaction id that is stored in the log, in the positions or in `instancia`.
create function cauce.xid_visto() returns bigint language sql as $$
    select greatest(
        (select max(ultimo.orden::text::bigint) from generate_series(0, 9) l(carril) cross join lateral (
            select e.orden from cauce.eventos e where e.carril = l.carril order by e.orden desc, e.id desc limit 1) ultimo),
        (select max(pg_snapshot_xmax(p.hasta)::text::bigint) - 1
           from cauce.grupos g cross join generate_series(0, 9) l(carril) cross join lateral (
            select q.hasta from cauce.posiciones q
             where q.grupo = g.grupo and q.carril = l.carril order by q.n desc limit 1) p),
        (select xid::text::bigint from cauce.instancia))
$$;

-- Refuses a database that was restored into a younger cluster: events published there would never be delivered. Every
-- stored id was committed here, so it lies below the end of the snapshot, or at most at this transaction's own id. One
-- check per connection is enough, because a restore needs new connections; a session setting remembers it.
create function cauce.comprobar_instancia() returns void language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    visto constant bigint := cauce.xid_visto();
    actual bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1;
begin
    if visto > actual then
        actual := greatest(actual, pg_current_xact_id()::text::bigint);
    end if;
    if visto > actual then
        raise exception 'this database was restored into a younger PostgreSQL cluster: it has seen transaction %, the cluster is at %',
            visto, actual
            using errcode = 'CA002',
                  hint = 'Nothing was published or claimed. Restore into a cluster whose transaction counter is ahead '
                         '(pg_resetwal -x on the new cluster before the restore), then try again.';
    end if;
    perform set_config('cauce.comprobada', 'si', false);
end $$;

-- Whether this database was restored into a younger cluster; read-only, for health checks.
create function cauce.restaurada() returns boolean language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select cauce.xid_visto() >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
$$;

-- The doorbell: wakes sleeping workers by NOTIFY at commit. Transactions that notify commit one after another, under one
-- lock of the whole cluster. So a publisher rings only while a worker sleeps (cauce.avisar), once in a transaction, and
-- only one publisher rings in the same 20 ms: the one that gets the lock of that time. Workers poll as well, so a
-- lost ring costs time, never an event. `set local cauce.timbre = 'no'` publishes without ringing, for PREPARE
-- TRANSACTION refuses a transaction that has sent NOTIFY.
create function cauce.tocar_timbre() returns boolean language plpgsql as $$
begin
    if not pg_try_advisory_xact_lock(1128355139, 1 + ((extract(epoch from clock_timestamp()) * 50)::bigint % 2147483646)::integer) then
        return false;
    end if;
    perform pg_notify('cauce', ''), set_config('cauce.timbre', 'no', true);
    return true;
end $$;

-- The first publish of a connection: checks for a restore into a younger cluster, then rings like all others.
create function cauce.primer_aviso() returns boolean language plpgsql as $$
begin
    perform cauce.comprobar_instancia();
    return cauce.avisar();
end $$;

-- Rings the doorbell if a worker sleeps; returns whether it rang. Every publish calls it. A process with a sleeping worker
-- holds lock (1128355139, 0) shared, so whoever gets it exclusively knows that none sleeps. It is one expression,
-- so that the planner inlines it: in a statement of its own it costs a quarter of what a trigger costs.
create function cauce.avisar() returns boolean language sql as $$
    select case
        when current_setting('cauce.comprobada', true) is distinct from 'si' then cauce.primer_aviso()
        when current_setting('cauce.timbre', true) = 'no' then false
        when pg_try_advisory_lock(1128355139, 0) then not pg_advisory_unlock(1128355139, 0)
        else cauce.tocar_timbre() end
$$;

-- Returns the root of an event's family: the event itself if nothing caused it, or if it is not stored any more.
-- Index   eventos_pkey
create function cauce.raiz_de(evento bigint) returns bigint language sql stable as $$
    select coalesce((select coalesce(e.correlacion, e.id) from cauce.eventos e where e.id = $1), $1)
$$;

-- Returns what causes the events of this transaction: the settings `cauce.causa` and `cauce.correlacion`. A worker sets
-- them in the transaction of a handler. A program that uses SQL alone may set them in its own; `cauce.causa` is enough.
-- Both null: nothing causes them; or `cauce.causa` is '?': handlers of several events share the transaction, and the
-- worker says later which of them published what (cauce.atribuir).
create function cauce.causa_actual(out causa bigint, out correlacion bigint) language plpgsql stable as $$
begin
    causa := nullif(nullif(current_setting('cauce.causa', true), ''), '?')::bigint;
    if causa is not null then
        correlacion := coalesce(nullif(current_setting('cauce.correlacion', true), '')::bigint, cauce.raiz_de(causa));
    end if;
end $$;

-- Tells the worker that the handler that runs now has published this event by SQL, where several handlers share the
-- transaction. It tells by `application_name`: the server reports a change of this setting to the client by itself, so
-- it costs no round trip; and a savepoint that is rolled back takes it back. If a handler changes application_name after
-- it has published, the worker may not see that; '?' then says that nobody knows which handler published what.
create function cauce.anotar_hijo(evento bigint) returns void language plpgsql as $$
declare
    ultimo constant text := coalesce(current_setting('cauce.ultimo_hijo', true), '');
    nombre constant text := 'cauce, evento ';
begin
    perform set_config('cauce.ultimo_hijo', case
        when ultimo = '' then evento::text
        when ultimo <> '?' and current_setting('application_name') = nombre || ultimo then evento::text
        else '?' end, true);
    perform set_config('application_name', nombre || current_setting('cauce.ultimo_hijo'), true);
end $$;

-- Stores the cause of the events that handlers of this transaction have published by SQL: the handler of `causas[i]` has
-- published those with an id above `desde[i]`, up to `hasta[i]`.
-- Index   eventos_pkey; pinned, for the table may never have been analyzed
create function cauce.atribuir(desde bigint[], hasta bigint[], causas bigint[], correlaciones bigint[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    update cauce.eventos e set causa = u.causa, correlacion = u.correlacion
      from unnest(desde, hasta, causas, correlaciones) u(desde, hasta, causa, correlacion)
     where e.id > u.desde and e.id <= u.hasta and e.tx = pg_current_xact_id() and e.causa is null;
end $$;

-- Completes an event that was inserted without a lane: takes lane and key from the catalog (the event's own row, else the
-- origin's, else priority 5), and its cause from the transaction (cauce.causa_actual); and rings the doorbell. Refuses an
-- event that breaks the rules of eventos_coherente (0001_tables.sql), and a forged or copied tx or orden, with which it
-- would never be delivered.
create function cauce.completar_evento() returns trigger language plpgsql as $$
declare
    nivel smallint;
    campo text;
    largo integer;
    avisado constant boolean := cauce.avisar();
begin
    if new.tx <> pg_current_xact_id()
       or new.orden <> new.tx and (new.orden < new.tx or new.orden >= pg_snapshot_xmax(pg_current_snapshot())) then
        raise exception 'tx and orden are written by the database, not by the publisher (got %, %)', new.tx, new.orden
            using errcode = 'CA003', hint = 'Leave tx, orden, id and carril out of the INSERT.';
    end if;
    if not cauce.es_coherente(new.estado, new.procesado_en, new.payload, new.cuerpo) then
        raise exception 'an event has a payload or a body, and procesado_en exactly when it is procesado'
            using errcode = 'check_violation', table = 'eventos', constraint = 'eventos_coherente';
    end if;
    select c.prioridad, c.clave into nivel, campo from cauce.catalogo c
     where c.origen = new.origen and c.tipo = new.tipo;
    if nivel is null then
        select c.prioridad into nivel from cauce.catalogo c where c.origen = new.origen and c.tipo = '*';
    end if;
    new.prioridad := coalesce(new.prioridad, nivel, 5);
    new.carril := coalesce(new.carril, new.prioridad);
    if campo is not null and new.clave is null then
        largo := length(new.payload ->> campo);
        if largo > 500 then
            raise exception 'clave is too long: the field % of the payload of %/% has % characters, and 500 are allowed',
                campo, new.origen, new.tipo, largo
                using errcode = 'string_data_right_truncation', table = 'eventos', column = 'clave';
        end if;
        new.clave := new.payload ->> campo;
    end if;
    if new.causa is not null then
        new.correlacion := coalesce(new.correlacion, cauce.raiz_de(new.causa));
    elsif current_setting('cauce.causa', true) <> '' then
        select c.causa, c.correlacion into new.causa, new.correlacion from cauce.causa_actual() c;
        if new.causa is null then
            perform cauce.anotar_hijo(new.id);
        end if;
    end if;
    return new;
end $$;

-- Rows with a lane were completed by their publisher (publicar_eventos, and publicar_evento in Python). The only rule they
-- can break is that of the content, because a publisher has no privilege on the other columns (permitir_publicar). Every
-- statement parses the WHEN: with all the rules it would cost a publish 6 us, this one costs 2.
create trigger eventos_completar before insert on cauce.eventos for each row
    when (new.carril is null or new.payload is null)
    execute function cauce.completar_evento();

-- Publishes one event in the caller's transaction and returns its id; for a known id_externo, the stored id.
-- `causa` is the event that causes it; by default, the transaction tells. `correlacion` is the root of its family; by
-- default, it is looked up.
create function cauce.publicar_evento(
    origen text, tipo text, payload jsonb,
    clave text default null, prioridad smallint default null,
    id_externo text default null, cabeceras jsonb default null,
    causa bigint default null, correlacion bigint default null
) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
    guardado bigint;
    larga constant text := case when length($4) > 500 then 'clave' when length($6) > 500 then 'id_externo' end;
begin
    if larga is not null then
        raise exception '% is too long: % characters, and 500 are allowed',
            larga, length(case larga when 'clave' then $4 else $6 end)
            using errcode = 'string_data_right_truncation', table = 'eventos', column = larga;
    end if;
    insert into cauce.eventos as e (origen, tipo, payload, clave, prioridad, id_externo, cabeceras, causa, correlacion)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    on conflict (origen, id_externo) where id_externo is not null do nothing
    returning e.id into guardado;
    if guardado is null then
        select e.id into guardado from cauce.eventos e where e.origen = $1 and e.id_externo = $6;
        if guardado is null then
            raise exception 'event %/% with id_externo % was stored by a transaction that this one cannot see', $1, $2, $6
                using errcode = 'serialization_failure', hint = 'Run the transaction again.';
        end if;
    end if;
    return guardado;
end $$;

-- Publishes many events in one statement: [{"origen", "tipo", "payload", "clave", "prioridad", "id_externo", "cabeceras"}].
-- `origen` and `tipo` are required. Returns the ids in the given order; for a known id_externo, the stored id.
-- `causa` and `correlacion` are those of all of them, as for cauce.publicar_evento.
-- Runs as the owner, because it writes tx, orden and id; so EXECUTE is revoked from public (see permitir_publicar).
create function cauce.publicar_eventos(eventos jsonb, causa bigint default null, correlacion bigint default null)
returns bigint[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    propia constant xid8 := pg_current_xact_id();
    orden constant xid8 := greatest(propia, (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text::xid8);
    ids bigint[] := array(select nextval('cauce.eventos_id_seq') from generate_series(1, jsonb_array_length(eventos)));
    guardados bigint;
    avisado constant boolean := cauce.avisar();
begin
    if $2 is not null then
        $3 := coalesce($3, cauce.raiz_de($2));
    else
        select c.causa, c.correlacion into $2, $3 from cauce.causa_actual() c;
    end if;
    insert into cauce.eventos as e
           (id, tx, orden, origen, tipo, payload, clave, prioridad, carril, id_externo, cabeceras, causa, correlacion)
    overriding system value
    select n.id, propia, orden, n.origen, n.tipo, coalesce(n.payload, 'null'), coalesce(n.clave, n.payload ->> c.clave),
           nivel, nivel, n.id_externo, n.cabeceras, $2, $3
      from rows from (
               jsonb_to_recordset(eventos) as (origen text, tipo text, payload jsonb, clave text, prioridad smallint,
                                               id_externo text, cabeceras jsonb),
               unnest(ids)) n(origen, tipo, payload, clave, prioridad, id_externo, cabeceras, id)
      left join cauce.catalogo c on c.origen = n.origen and c.tipo = n.tipo
      left join cauce.catalogo d on d.origen = n.origen and d.tipo = '*' and c.origen is null
     cross join lateral (select coalesce(n.prioridad, c.prioridad, d.prioridad, 5)::smallint nivel) v
    on conflict (origen, id_externo) where id_externo is not null do nothing;
    get diagnostics guardados = row_count;
    if $2 is null and guardados > 0 and current_setting('cauce.causa', true) = '?' then
        perform cauce.anotar_hijo(ids[cardinality(ids)]);
    end if;
    if guardados < cardinality(ids) then
        ids := array(
            select case when n.id_externo is null then n.id else e.id end
              from rows from (jsonb_to_recordset(eventos) as (origen text, id_externo text), unnest(ids))
                   with ordinality n(origen, id_externo, id, o)
              left join cauce.eventos e on e.origen = n.origen and e.id_externo = n.id_externo
             order by n.o);
        if array_position(ids, null) is not null then
            raise exception 'events with a known id_externo were stored by transactions that this one cannot see'
                using errcode = 'serialization_failure', hint = 'Run the transaction again.';
        end if;
    end if;
    return ids;
end $$;
revoke execute on function cauce.publicar_eventos from public;

-- The ids above `desde` that this transaction has stored, in order: those of a COPY, if `desde` is what the sequence was
-- before it. Index: eventos_pkey, pinned, because the table may never have been analyzed.
create function cauce.copiados(desde bigint) returns bigint[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    return array(select e.id from cauce.eventos e where e.id > desde and e.tx = pg_current_xact_id() order by e.id);
end $$;

-- Lets a role publish through the functions, INSERT or COPY. It cannot write tx, orden or id: the first two decide whether
-- and when an event is delivered. It may write carril, which is harmless and saves a lookup.
create function cauce.permitir_publicar(rol text) returns void language plpgsql as $$
begin
    execute format('grant usage on schema cauce to %I', rol);
    execute format('grant select on cauce.catalogo to %I', rol);
    execute format('grant select, usage on cauce.eventos_id_seq to %I', rol);
    execute format('grant select (id, origen, id_externo, correlacion) on cauce.eventos to %I', rol);
    execute format('grant insert (origen, tipo, payload, clave, prioridad, carril, id_externo, cabeceras, disponible_en,
                    causa, correlacion) on cauce.eventos to %I', rol);
    execute format('grant execute on function cauce.publicar_eventos to %I', rol);
end $$;
