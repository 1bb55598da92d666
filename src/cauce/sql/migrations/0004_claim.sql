-- The claim: which events a worker gets next.
--
-- A window is a pair of snapshots: the events visible in `hasta` but not in `desde`. A group reads it in the order of
-- (orden, id): first the stragglers, which were in progress at `desde` and finished by `hasta`, then the rest. When the
-- window is exhausted, the claim opens the next one from its own snapshot. So no event that commits late is missed, none
-- is read twice, and no claim waits for an open transaction.
--
--      orden ->      xmax(desde)                    xmax(hasta)
--   ...-------------------|------------------------------|----------- not yet
--      stragglers: tx in  |  tx visible in hasta         |
--      xip(desde) and     |                              |
--      visible in hasta   |                              |

-- How many entries of eventos_log this transaction has read so far, those of invisible rows included. This measures the
-- cost of a claim better than the clock of a busy machine. One expression, so that the planner inlines it.
create function cauce.leidas() returns bigint language sql volatile as $$
    select pg_stat_get_xact_tuples_returned('cauce.eventos_log'::regclass)
$$;

-- The oldest end that a window may have: retention waits for older positions, so those are moved.
create function cauce.reciente(ahora pg_snapshot) returns xid8 language sql immutable as $$
    select greatest(pg_snapshot_xmax(ahora)::text::bigint - 10000, 0)::text::xid8
$$;

-- How far a group has read a lane; `n` is null if it has no position there. Inlined where it is called.
create function cauce.posicion(grupo text, carril smallint) returns setof cauce.posiciones language sql stable rows 1 as $$
    select $1, $2::cauce.nivel, q.n, q.desde, q.hasta, q.orden, q.id
      from (select) una left join lateral (
        select q.n, q.desde, q.hasta, q.orden, q.id from cauce.posiciones q
         where q.grupo = $1 and q.carril = $2 order by q.n desc limit 1) q on true
$$;

-- Whether a position is up to date: its window is read to the end, and nothing was in progress there. Then all that is new
-- in the lane comes after the window. Inlined where it is called.
create function cauce.al_dia(posicion cauce.posiciones) returns boolean language sql immutable as $$
    select $1.orden = pg_snapshot_xmax($1.hasta) and pg_snapshot_xmin($1.hasta) = pg_snapshot_xmax($1.hasta)
$$;

-- The position of the first of these lanes, in the given order, that may have events for the group; null if none has. A
-- lane that is skipped surely has none. After its position, a row is new unless it is visible in `desde`; before it, only
-- rows of transactions that were in progress at `hasta` and have finished since are new. Also returned is a lane
-- whose position is missing, ahead of the cluster, or old: cauce.avanzar must see it. So is a lane that is not up to
-- date while nothing is in progress, since it can be brought up to date now.
-- Locks   the caller holds the claim lock of the group
-- Index   eventos_log, two probes a lane, one lane after the other, so that the lanes after the first one cost nothing
create function cauce.primer_carril(grupo text, carriles smallint[]) returns cauce.posiciones
language plpgsql as $$
declare
    ahora constant pg_snapshot := pg_current_snapshot();
    reciente constant xid8 := cauce.reciente(ahora);
    calma constant boolean := pg_snapshot_xmin(ahora) = pg_snapshot_xmax(ahora);
    primera cauce.posiciones;
begin
    select p.* into primera
      from unnest(carriles) l(carril) cross join lateral cauce.posicion(primer_carril.grupo, l.carril) p
     where case
        when p.n is null or pg_snapshot_xmax(p.hasta) not between reciente and pg_snapshot_xmax(ahora)
          or calma and not cauce.al_dia(p) then true
        when (select true from cauce.eventos e
               where e.carril = l.carril and (e.orden, e.id) > (p.orden, p.id)
                 and not pg_visible_in_snapshot(e.tx, p.desde) limit 1) then true
        when pg_snapshot_xmin(p.hasta) < pg_snapshot_xmax(p.hasta) then (
            select true
              from (select array(select x from pg_snapshot_xip(p.hasta) x where pg_visible_in_snapshot(x, ahora)) xids
                    offset 0) acabadas
             cross join lateral (
                   select from cauce.eventos e
                    where e.carril = l.carril and e.orden >= acabadas.xids[1] and (e.orden, e.id) <= (p.orden, p.id)
                      and e.tx = any (acabadas.xids) limit 1) e)
        end
     limit 1;
    return primera;
end $$;

-- Reads up to `maximo` events from a position to the end of its window, and moves the position past them. With 0 it moves
-- the position up to the next event, past rolled-back rows. `agotada`: the window has no more events. It returns early,
-- with the events found so far, if the claim has read too many index entries; `antes`: entries read before the claim.
-- Locks   the caller holds the claim lock of the group
-- Index   eventos_log, as an index-only range from the position; pinned by the settings on cauce.tomar
create function cauce.leer_ventana(
    inout posicion cauce.posiciones, maximo integer, antes bigint, out ids bigint[], out agotada boolean)
language plpgsql as $$
declare
    -- the oldest straggler, or the beginning of the window: nothing before it is new
    comienzo xid8 := pg_snapshot_xmax(posicion.desde);
    cuantos integer := maximo;
    tanda record;
    -- how many entries a claim reads; more only if it has found nothing yet
    paciencia constant bigint := 4000;
begin
    ids := '{}';
    agotada := false;
    if pg_snapshot_xmin(posicion.desde) < comienzo then
        comienzo := coalesce((
            select x from pg_snapshot_xip(posicion.desde) x where pg_visible_in_snapshot(x, posicion.hasta) limit 1), comienzo);
    end if;
    if posicion.orden < comienzo then
        posicion.orden := comienzo;
        posicion.id := 0;
    end if;
    -- Transactions in progress may have thousands of invisible rows between two visible ones. Nothing but reading tells. So
    -- it reads a few events first, then as many as `paciencia` allows at the rate of entries per event seen so far.
    if pg_snapshot_xmax(posicion.hasta)::text::bigint - pg_snapshot_xmin(posicion.hasta)::text::bigint > 1 then
        cuantos := least(maximo, 4);
    end if;
    loop
        cuantos := least(cuantos, maximo - cardinality(ids));
        select array_agg(r.id) ids, (array_agg(r.orden))[count(*)] orden into tanda from (
            select e.id, e.orden from cauce.eventos e
             where e.carril = posicion.carril and (e.orden, e.id) > (posicion.orden, posicion.id)
               and e.orden < pg_snapshot_xmax(posicion.hasta)
               and pg_visible_in_snapshot(e.tx, posicion.hasta) and not pg_visible_in_snapshot(e.tx, posicion.desde)
             order by e.orden, e.id limit greatest(cuantos, 1)) r;
        exit when tanda.ids is null;
        posicion.orden := tanda.orden;
        if maximo = 0 then
            posicion.id := tanda.ids[1] - 1;
            return;
        end if;
        ids := ids || tanda.ids;
        posicion.id := ids[cardinality(ids)];
        if cardinality(ids) = maximo then
            return;
        end if;
        exit when cardinality(tanda.ids) < cuantos;
        cuantos := cardinality(ids) * (paciencia - (cauce.leidas() - antes)) / greatest(cauce.leidas() - antes, 1);
        if cuantos < 1 then
            return;
        end if;
    end loop;
    agotada := true;
    posicion.orden := pg_snapshot_xmax(posicion.hasta);
    posicion.id := 0;
end $$;

-- The next ids of a position's lane, at most `maximo`, in window order; moves the position. Opens the next window when this
-- one is exhausted. `maximo` 0 moves the position up to the next event.
-- Locks   the caller holds the claim lock of the group
create function cauce.avanzar(posicion cauce.posiciones, maximo integer) returns bigint[]
language plpgsql as $$
declare
    antes constant bigint := cauce.leidas();
    atrasada constant boolean := not cauce.al_dia(posicion);
    -- reading this many entries again takes as long as writing a position
    pocas constant bigint := 300;
    ids bigint[] := '{}';
    agotada boolean := true;
    r record;
begin
    if posicion.n is null then
        raise exception 'group % has no position in lane %', posicion.grupo, posicion.carril
            using errcode = 'CA004', hint = 'Run: cauce migrate module:bus';
    end if;
    if pg_snapshot_xmax(posicion.hasta) > pg_snapshot_xmax(pg_current_snapshot()) then
        perform cauce.comprobar_restauracion(), cauce.comprobar_instancia();
    end if;
    if posicion.orden < pg_snapshot_xmax(posicion.hasta) then
        r := cauce.leer_ventana(posicion, maximo, antes);
        posicion := r.posicion;
        ids := r.ids;
        agotada := r.agotada;
    end if;
    if agotada then
        posicion.desde := posicion.hasta;
        posicion.hasta := case when pg_current_xact_id_if_assigned() is null then pg_current_snapshot() else cauce.foto() end;
        posicion.orden := '0';
        r := cauce.leer_ventana(posicion, maximo - cardinality(ids), antes);
        posicion := r.posicion;
        ids := ids || r.ids;
    end if;
    -- For an empty window, the position is written only if reading the window again would cost more, if it is old, or if it
    -- is up to date afterwards, as cauce.tomar_al_timbre needs it.
    if cardinality(ids) > 0 or cauce.leidas() - antes > pocas or atrasada and cauce.al_dia(posicion)
       or pg_snapshot_xmax(posicion.desde) < cauce.reciente(posicion.hasta) then
        with vieja as (
            delete from cauce.posiciones q
             where q.grupo = posicion.grupo and q.carril = posicion.carril and q.n = posicion.n)
        insert into cauce.posiciones (grupo, carril, n, desde, hasta, orden, id)
        values (posicion.grupo, posicion.carril, posicion.n + 1, posicion.desde, posicion.hasta, posicion.orden, posicion.id);
    end if;
    return ids;
end $$;

-- The lanes in a circle, from a random one on.
create function cauce.sortear(carriles smallint[]) returns smallint[] language sql volatile as $$
    select $1[i:] || $1[:i - 1] from (select 1 + floor(random() * cardinality($1))::integer) sorteo(i)
$$;

-- The next ids of a group, at most `maximo`, all from one lane: the lowest with events. Once that lane has been read 20
-- times, one call in 20 starts at a random lane and goes on in a circle, so that lanes after a lane that is never empty do
-- not starve.
-- Locks   the caller holds the claim lock of the group
create function cauce.siguientes(grupo text, maximo integer) returns bigint[]
language plpgsql as $$
#variable_conflict use_variable
declare
    carriles smallint[] := '{0,1,2,3,4,5,6,7,8,9}';
    p cauce.posiciones;
    antes constant bigint := cauce.leidas();
    salto boolean;            -- looking at the lanes has read so many entries that all positions move past them
    ids bigint[] := '{}';
begin
    p := cauce.primer_carril(grupo, carriles);
    if p.n >= 20 and random() < 0.05 then
        carriles := cauce.sortear(carriles);
        p := cauce.primer_carril(grupo, carriles);
    end if;
    salto := cauce.leidas() - antes > 1000;
    if not salto then
        if p.carril is null then
            return ids;
        end if;
        ids := cauce.avanzar(p, maximo);
        if cardinality(ids) > 0 then
            return ids;
        end if;
        carriles := carriles[array_position(carriles, p.carril::smallint) + 1:];
    end if;
    -- The lane had no events after all; or rolled back transactions left many rows, and every position moves past them.
    for p in select q.* from unnest(carriles) l(carril) cross join lateral cauce.posicion(siguientes.grupo, l.carril) q loop
        exit when cardinality(ids) > 0 and not salto;
        ids := ids || cauce.avanzar(p, case when cardinality(ids) = 0 then maximo else 0 end);
    end loop;
    return ids;
end $$;

-- The next due retries of an application, at most `maximo`. The lowest lanes come first; once the mark of a lane has moved
-- 20 times, one call in 20 starts at a random lane, as for new events. `sospechosas` selects deliveries whose worker died,
-- and none if this worker already holds one. It writes only the marks, not entregas. Claims read nothing before
-- the mark of a lane, so the caller must list these deliveries in a lote in the same transaction.
-- Locks   the caller holds the claim lock of the group; the rows to the end of the transaction, skipping those that an
--         operator or a settling worker has locked
-- Index   marcas_pkey, backward; entregas_debidas, as a range from the mark to now
create function cauce.tomar_reintentos(
    grupo text, aplicacion text, trabajador text, maximo integer, sospechosas boolean,
    out reintentos bigint[], out suscriptores text[])
language plpgsql as $$
#variable_conflict use_column
declare
    ahora constant timestamptz := clock_timestamp();          -- a volatile call could not bound the index range
    carriles smallint[] := '{0,1,2,3,4,5,6,7,8,9}';
begin
    -- Mostly nothing is due; a query that only reads finds that out for less than half the cost. Deliveries whose worker
    -- died are few, so their dead index entries do not matter. A worker holds one of them at a time: if it died with two,
    -- both would be blamed.
    if $5 then
        if not exists (select from cauce.entregas q where q.grupo = $1 and q.aplicacion = $2 and (q.caidas > 0)
                          and q.prioridad between 0 and 9 and q.estado = 'pendiente')
           or exists (select from cauce.lotes l where l.sospechosa and l.trabajador = $3) then
            return;
        end if;
    elsif not exists (
        select from generate_series(0, 9) nivel
          left join lateral (
            select q.proximo_en, q.evento, q.suscriptor from cauce.marcas q
             where q.grupo = $1 and q.aplicacion = $2 and not q.sospechosas and q.prioridad = nivel
             order by q.n desc limit 1) m on true
         cross join lateral (
            select from cauce.entregas q
             where q.grupo = $1 and q.aplicacion = $2 and (q.caidas > 0) = false and q.prioridad = nivel
               and q.estado = 'pendiente' and q.proximo_en <= ahora
               and (q.proximo_en, q.evento, q.suscriptor)
                   > (coalesce(m.proximo_en, '-infinity'), coalesce(m.evento, 0), coalesce(m.suscriptor, '')) limit 1) d) then
        return;
    end if;
    if random() < 0.05 and exists (
        select from cauce.marcas q
         where q.grupo = $1 and q.aplicacion = $2 and q.sospechosas = $5 and q.prioridad between 0 and 9 and q.n >= 20) then
        carriles := cauce.sortear(carriles);
    end if;
    with tomadas as materialized (
        select nivel, m.n, d.proximo_en, d.evento, d.suscriptor
          from unnest(carriles) nivel
          left join lateral (
            select q.n, q.proximo_en, q.evento, q.suscriptor from cauce.marcas q
             where q.grupo = $1 and q.aplicacion = $2 and q.sospechosas = $5 and q.prioridad = nivel
             order by q.n desc limit 1) m on true
         cross join lateral (
            select q.proximo_en, q.evento, q.suscriptor from cauce.entregas q
             where q.grupo = $1 and q.aplicacion = $2 and (q.caidas > 0) = $5 and q.prioridad = nivel
               and q.estado = 'pendiente' and q.proximo_en <= ahora
               and (q.proximo_en, q.evento, q.suscriptor)
                   > (coalesce(m.proximo_en, '-infinity'), coalesce(m.evento, 0), coalesce(m.suscriptor, ''))
             order by q.proximo_en, q.evento, q.suscriptor limit $4 for update skip locked) d
         limit $4),
    ultimas as (
        select distinct on (t.nivel) t.nivel, coalesce(t.n, 0) n, t.proximo_en, t.evento, t.suscriptor
          from tomadas t order by t.nivel, t.proximo_en desc, t.evento desc, t.suscriptor desc),
    nuevas as (
        insert into cauce.marcas (grupo, aplicacion, sospechosas, prioridad, n, proximo_en, evento, suscriptor)
        select $1, $2, $5, u.nivel, u.n + 1, u.proximo_en, u.evento, u.suscriptor from ultimas u),
    viejas as (
        delete from cauce.marcas q using ultimas u
         where q.grupo = $1 and q.aplicacion = $2 and q.sospechosas = $5 and q.prioridad = u.nivel and q.n = u.n)
    select array_agg(t.evento), array_agg(t.suscriptor) into reintentos, suscriptores from tomadas t;
end $$;

-- Chooses what a claim gets: new events (`ids`), due retries, or one delivery whose worker died (`sospechosa`).
--
-- Due retries come first, at most half of the claim; then new events of one lane, in window order. One claim in two, and one
-- that finds nothing else, gets a delivery whose worker died, if there is one, and nothing besides it: if it kills the
-- process again, no other delivery is affected.
-- Locks   the caller holds the claim lock of the group; those of cauce.tomar_reintentos
create function cauce.elegir(
    grupo text, aplicacion text, trabajador text, maximo integer,
    out ids bigint[], out reintentos bigint[], out suscriptores text[], out sospechosa boolean)
language plpgsql as $$
declare
    -- random, not a counter: with a counter, groups whose claims alternate would always get the same turns
    muerta_primero constant boolean := random() < 0.5;
    reintento_primero constant boolean := random() < 0.5;      -- for a claim of one, which cannot be halved
    r record;
begin
    ids := '{}';
    reintentos := '{}';
    suscriptores := '{}';
    sospechosa := false;
    if muerta_primero then
        r := cauce.tomar_reintentos(grupo, aplicacion, trabajador, 1, true);
        sospechosa := r.reintentos is not null;
    end if;
    if not sospechosa then
        r := cauce.tomar_reintentos(grupo, aplicacion, trabajador, case when maximo > 1 then maximo / 2 else reintento_primero::integer end, false);
        if coalesce(cardinality(r.reintentos), 0) < maximo then
            ids := cauce.siguientes(grupo, maximo - coalesce(cardinality(r.reintentos), 0));
        end if;
        if r.reintentos is null and cardinality(ids) = 0 then
            if maximo = 1 then
                r := cauce.tomar_reintentos(grupo, aplicacion, trabajador, 1, false);
            end if;
            if r.reintentos is null and not muerta_primero then
                r := cauce.tomar_reintentos(grupo, aplicacion, trabajador, 1, true);
                sospechosa := r.reintentos is not null;
            end if;
        end if;
    end if;
    if r.reintentos is not null then
        reintentos := r.reintentos;
        suscriptores := r.suscriptores;
    end if;
end $$;

-- Removes deliveries of events that were deleted by hand from a lote; returns whether any delivery is left.
create function cauce.soltar_borrados(lote bigint) returns boolean
language plpgsql as $$
#variable_conflict use_column
declare
    l cauce.lotes;
    r record;                 -- the deliveries that are left
begin
    select * into l from cauce.lotes q where q.id = $1;
    delete from cauce.entregas d using unnest(l.reintentos, l.suscriptores) u(evento, suscriptor)
     where d.evento = u.evento and d.grupo = l.grupo and d.suscriptor = u.suscriptor
       and not exists (select from cauce.eventos e where e.id = u.evento);
    select coalesce(array_agg(u.evento order by u.o), '{}') reintentos, coalesce(array_agg(u.suscriptor order by u.o), '{}') suscriptores
      into r from unnest(l.reintentos, l.suscriptores) with ordinality u(evento, suscriptor, o)
     where exists (select from cauce.eventos e where e.id = u.evento);
    raise warning 'group %: % deliveries of events that were deleted are dropped',
        l.grupo, cardinality(l.reintentos) - cardinality(r.reintentos);
    if cardinality(r.reintentos) + cardinality(l.ids) = 0 then
        delete from cauce.lotes q where q.id = $1;
        return false;
    end if;
    update cauce.lotes q set reintentos = r.reintentos, suscriptores = r.suscriptores where q.id = $1;
    return true;
end $$;

-- Claims the next deliveries of a group for a worker, under a lease of `arriendo`.
--
-- Returns one row for each delivery. `suscriptor` is null for an event that is delivered for the first time (to every
-- subscriber of the group), '*' for one that all subscribers get again, a name for a single retry. No row: nothing is due.
-- `version` is that of the group's subscriptions. It is read after the events were chosen, so it includes every
-- subscription that was committed before one of them.
-- Order     that of cauce.elegir, retries before new events
-- Locks     the claim lock of the group to the end of the transaction: one claim of a group at a time
-- Index     those of the functions it calls; entregas_pkey and eventos_pkey for the rows; all pinned by its settings
-- Owner     workers of any application claim new events; a retry is claimed by workers of its application
-- Isolation READ COMMITTED, in a transaction of its own
-- Disk      A claim of new events does not wait for the disk. If a server crash undoes it, the events are claimed again,
--           and the token tells the claims apart. A claim with retries waits. So does one that is `prudente`, which
--           workers set after a crash: their events may have caused it, so the crash must be counted against them.
create function cauce.tomar(
    grupo text, maximo integer, trabajador text, arriendo interval, prudente boolean default false,
    aplicacion text default '')
returns table (
    lote bigint, ficha bigint, suscriptor text, intento integer, caidas smallint,
    id bigint, origen text, tipo text, clave text, id_externo text, prioridad smallint,
    creado_en timestamptz, payload text, cabeceras text, causa bigint, correlacion bigint, version bigint)
language plpgsql
-- Set here, so that no connection pool loses them. They fix the plans, also after a burst on a table never analyzed.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    turno bigint;             -- the id of the lote, drawn only if there is something to claim: an empty claim writes nothing
    marca bigint;
    r record;                 -- what cauce.elegir chose
    encontrados bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'cauce.tomar needs READ COMMITTED: it must see what was committed a moment ago'
            using errcode = 'CA005', hint = 'Claim in a transaction of its own, begun with: begin isolation level read committed';
    end if;
    if current_setting('cauce.comprobada', true) is distinct from 'si' then
        perform cauce.comprobar_instancia();
    end if;
    perform cauce.tomar_turno($1);
    r := cauce.elegir($1, $6, $3, $2);
    if cardinality(r.reintentos) = 0 and (cardinality(r.ids) = 0 or not prudente) then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if cardinality(r.reintentos) + cardinality(r.ids) = 0 then
        return;                                               -- at most, positions were saved
    end if;
    turno := nextval('cauce.lotes_id');
    insert into cauce.lotes as l (id, grupo, aplicacion, ids, reintentos, suscriptores, sospechosa, trabajador, arriendo_hasta)
    values (turno, $1, $6, r.ids, r.reintentos, r.suscriptores, r.sospechosa, $3, clock_timestamp() + $4)
    returning l.ficha into marca;
    if cardinality(r.reintentos) > 0 then
        return query
        select turno, marca, d.suscriptor, d.intentos + 1, d.caidas, e.id, e.origen::text, e.tipo::text, e.clave::text,
               e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text, e.causa, e.correlacion,
               (select g.version from cauce.grupos g where g.grupo = $1)
          from unnest(r.reintentos, r.suscriptores) with ordinality u(evento, suscriptor, o)
         cross join lateral (
            select q.suscriptor, q.intentos, q.caidas from cauce.entregas q
             where q.evento = u.evento and q.grupo = $1 and q.suscriptor = u.suscriptor limit 1) d
          join cauce.eventos e on e.id = u.evento
         order by u.o;
        get diagnostics encontrados = row_count;
        if encontrados <> cardinality(r.reintentos) and not cauce.soltar_borrados(turno) then
            return;
        end if;
    end if;
    -- A later statement than those that chose the events: an older snapshot would not see all of them.
    return query
    select turno, marca, null::text, 1, 0::smallint, e.id, e.origen::text, e.tipo::text, e.clave::text,
           e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text, e.causa, e.correlacion,
           (select g.version from cauce.grupos g where g.grupo = $1)
      from unnest(r.ids) with ordinality u(id, o) join cauce.eventos e on e.id = u.id order by u.o;
    get diagnostics encontrados = row_count;
    if encontrados <> cardinality(r.ids) then
        raise exception 'lote % claimed % events, % of them exist', turno, cardinality(r.ids), encontrados;
    end if;
end $$;

-- Claims as cauce.tomar does, for a worker that the doorbell has just woken: new events come first, and mostly one statement
-- finds them and returns them. It takes events of the first lane that may have any, if that lane is up to date and nothing
-- is in progress. Otherwise cauce.tomar decides. The caller's own transaction counts: PostgreSQL leaves its id out of the
-- snapshot's list, but not out of the snapshot's xmin.
--
-- It knows neither retries nor the draw of lanes. They wait for one batch at most: the claim that settles it is an ordinary one.
-- Locks, Index, Owner, Isolation, Disk   as cauce.tomar
create function cauce.tomar_al_timbre(
    grupo text, maximo integer, trabajador text, arriendo interval, prudente boolean default false,
    aplicacion text default '')
returns table (
    lote bigint, ficha bigint, suscriptor text, intento integer, caidas smallint,
    id bigint, origen text, tipo text, clave text, id_externo text, prioridad smallint,
    creado_en timestamptz, payload text, cabeceras text, causa bigint, correlacion bigint, version bigint)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
begin
    if current_setting('transaction_isolation') = 'read committed' and current_setting('cauce.comprobada', true) = 'si' then
        perform cauce.tomar_turno($1);
        return query
        with elegida as materialized (
            select * from (
                select p.carril, p.n, p.hasta, ahora, e.ids, e.orden,
                       cauce.al_dia(p) and pg_snapshot_xmax(p.hasta) <= pg_snapshot_xmax(ahora) al_dia
                  from pg_current_snapshot() ahora
                 cross join generate_series(0, 9) l(carril)
                 cross join lateral cauce.posicion($1, l.carril::smallint) p
                 cross join lateral (
                    select array_agg(e.id) ids, (array_agg(e.orden))[count(*)] orden from (
                        select e.id, e.orden from cauce.eventos e
                         where e.carril = l.carril and (e.orden, e.id) > (pg_snapshot_xmax(p.hasta), 0)
                           and e.orden < pg_snapshot_xmax(ahora)
                           and pg_visible_in_snapshot(e.tx, ahora) and not pg_visible_in_snapshot(e.tx, p.hasta)
                         order by e.orden, e.id limit $2) e) e
                 where pg_snapshot_xmin(ahora) = pg_snapshot_xmax(ahora)
                   and (e.ids is not null or (cauce.al_dia(p) and pg_snapshot_xmax(p.hasta) <= pg_snapshot_xmax(ahora)) is not true)
                 limit 1) primera
             where al_dia and ids is not null),
        vieja as (
            delete from cauce.posiciones q using elegida p where q.grupo = $1 and q.carril = p.carril and q.n = p.n),
        nueva as (
            insert into cauce.posiciones (grupo, carril, n, desde, hasta, orden, id)
            select $1, p.carril, p.n + 1, p.hasta, p.ahora,
                   case when cardinality(p.ids) = $2 then p.orden else pg_snapshot_xmax(p.ahora) end,
                   case when cardinality(p.ids) = $2 then p.ids[$2] else 0 end
              from elegida p),
        arrendado as (
            insert into cauce.lotes as l (id, grupo, aplicacion, ids, trabajador, arriendo_hasta)
            select nextval('cauce.lotes_id'), $1, $6, p.ids, $3, clock_timestamp() + $4 from elegida p
            returning l.id, l.ficha)
        select l.id, l.ficha, null::text, 1, 0::smallint, e.id, e.origen::text, e.tipo::text, e.clave::text,
               e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text, e.causa, e.correlacion,
               (select g.version from cauce.grupos g where g.grupo = $1)
          from arrendado l cross join elegida p cross join unnest(p.ids) with ordinality u(id, o)
          join cauce.eventos e on e.id = u.id order by u.o;
        if found then
            if not prudente then
                set local synchronous_commit = off;
            end if;
            return;
        end if;
    end if;
    return query select * from cauce.tomar($1, $2, $3, $4, $5, $6);
end $$;
