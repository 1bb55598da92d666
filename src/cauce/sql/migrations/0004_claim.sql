-- The claim: which events a worker gets next.
--
-- A window is a pair of snapshots: the events visible in `hasta` and not in `desde`. First its stragglers, which were
-- in progress at `desde` and finished in `hasta`; then the rest. Inside it the position is (orden, id). When it is
-- exhausted, the claimer opens the next one from its own snapshot. So nothing is missed that commits late, nothing is
-- handed out twice, and nobody waits for a transaction that stays open.
--
--      orden ->      xmax(desde)                    xmax(hasta)
--   ...-------------------|------------------------------|----------- not yet
--      stragglers: tx in  |  tx visible in hasta         |
--      xip(desde) and     |                              |
--      visible in hasta   |                              |

-- Entries of eventos_log that this transaction has read so far, those of invisible rows included. They are the cost of a
-- claim, counted because the clock of a busy machine says little. One expression, so that the planner inlines it.
create function cauce.leidas() returns bigint language sql volatile as $$
    select pg_stat_get_xact_tuples_returned('cauce.eventos_log'::regclass)
$$;

-- The oldest end of a window that is not old: a position should not stay further behind, for retention waits for it.
create function cauce.reciente(ahora pg_snapshot) returns xid8 language sql immutable as $$
    select greatest(pg_snapshot_xmax(ahora)::text::bigint - 10000, 0)::text::xid8
$$;

-- How far a group has read a lane; `n` is null if nobody knows. Inlined where it is called.
create function cauce.posicion(grupo text, carril smallint) returns setof cauce.posiciones language sql stable rows 1 as $$
    select $1, $2::cauce.nivel, q.n, q.desde, q.hasta, q.orden, q.id
      from (select) una left join lateral (
        select q.n, q.desde, q.hasta, q.orden, q.id from cauce.posiciones q
         where q.grupo = $1 and q.carril = $2 order by q.n desc limit 1) q on true
$$;

-- The position in the first of these lanes, in the order given, in which there may be anything for the group; null: in none
-- of them. A lane that it passes over has nothing. Beyond its position every row is new that is there and was not at
-- `desde`; before it, only those of transactions that were in progress at `hasta` and are not any more. It also names a
-- lane that cauce.avanzar must see for another reason: its position is missing, ahead of the cluster, or old.
-- Locks   the caller has the group's turn
-- Index   eventos_log, two probes a lane; lane by lane, as unnest gives them, so that those after the first cost nothing
create function cauce.primer_carril(grupo text, carriles smallint[]) returns cauce.posiciones
language plpgsql as $$
declare
    ahora constant pg_snapshot := pg_current_snapshot();
    reciente constant xid8 := cauce.reciente(ahora);
    primera cauce.posiciones;
begin
    select p.* into primera
      from unnest(carriles) l(carril) cross join lateral cauce.posicion(primer_carril.grupo, l.carril) p
     where case
        when p.n is null or pg_snapshot_xmax(p.hasta) not between reciente and pg_snapshot_xmax(ahora) then true
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

-- Reads on in the window of a position, up to `maximo` events (0: up to the next one, past the rows that nobody may see), and
-- moves the position behind them. `agotada`: the window has no more. It stops before, with what it has found, once the
-- claim has read too much since it had read `antes` entries.
-- Locks   the caller has the group's turn
-- Index   eventos_log, as an index-only range from the position; pinned by the settings on cauce.tomar
create function cauce.leer_ventana(
    inout posicion cauce.posiciones, maximo integer, antes bigint, out ids bigint[], out agotada boolean)
language plpgsql as $$
declare
    -- the oldest straggler, or where the window itself begins: nothing before it is new
    comienzo xid8 := pg_snapshot_xmax(posicion.desde);
    cuantos integer := maximo;
    tanda record;
    -- entries that a claim reads, unless it has found nothing yet
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
    -- Whoever was in progress may have left rows in between that nobody may see, thousands for each that is found. Only
    -- looking tells: so a few first, and as many more as the patience is good for at that pace.
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

-- The next ids of the lane of a position, at most `maximo`, in window order; moves the position. When its window is exhausted
-- it opens the next one. `maximo` 0: moves it up to the next event.
-- Locks   the caller has the group's turn
create function cauce.avanzar(posicion cauce.posiciones, maximo integer) returns bigint[]
language plpgsql as $$
declare
    antes constant bigint := cauce.leidas();
    -- entries that are not worth reading twice: it takes as long as to write a position
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
    -- An empty window is not worth a write, unless reading it again would cost as much, or it has grown old.
    if cardinality(ids) > 0 or cauce.leidas() - antes > pocas
       or pg_snapshot_xmax(posicion.desde) < cauce.reciente(posicion.hasta) then
        with vieja as (
            delete from cauce.posiciones q
             where q.grupo = posicion.grupo and q.carril = posicion.carril and q.n = posicion.n)
        insert into cauce.posiciones (grupo, carril, n, desde, hasta, orden, id)
        values (posicion.grupo, posicion.carril, posicion.n + 1, posicion.desde, posicion.hasta, posicion.orden, posicion.id);
    end if;
    return ids;
end $$;

-- The lanes in a circle, from one drawn by lot.
create function cauce.sortear(carriles smallint[]) returns smallint[] language sql volatile as $$
    select $1[i:] || $1[:i - 1] from (select 1 + floor(random() * cardinality($1))::integer) sorteo(i)
$$;

-- The next ids of a group, at most `maximo`, all of one lane: the lowest that has any. Once that lane has been served 20
-- times, one call in 20 begins at a lane drawn by lot and goes on in a circle, so that no lane starves below one that is
-- never empty.
-- Locks   the caller has the group's turn
create function cauce.siguientes(grupo text, maximo integer) returns bigint[]
language plpgsql as $$
#variable_conflict use_variable
declare
    carriles smallint[] := '{0,1,2,3,4,5,6,7,8,9}';
    p cauce.posiciones;
    antes constant bigint := cauce.leidas();
    salto boolean;            -- the look at the lanes has read so much that it moves the positions past it
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
    -- Nothing was there after all; or somebody has left many rows that nobody may see, and every position goes past them.
    for p in select q.* from unnest(carriles) l(carril) cross join lateral cauce.posicion(siguientes.grupo, l.carril) q loop
        exit when cardinality(ids) > 0 and not salto;
        ids := ids || cauce.avanzar(p, case when cardinality(ids) = 0 then maximo else 0 end);
    end loop;
    return ids;
end $$;

-- The due retries of an application that come next, at most `maximo` of them. The lowest lanes come first; once the marks
-- of a lane have moved 20 times, one call in 20 begins at a lane drawn by lot, as for new events. `sospechosas`: of those
-- whose worker died, and none if this worker has one in hand. Writes nothing to entregas, only the marks: a claim reads
-- nothing before the mark of its lane, so the caller must list these in a lote in the same transaction.
-- Locks   the caller has the group's turn; the rows, to the end of the transaction, but skip locked: an operator or a
--         settling worker may hold some
-- Index   marcas_pkey, backward; entregas_debidas, as a range from the mark to now
create function cauce.tomar_reintentos(
    grupo text, aplicacion text, trabajador text, maximo integer, sospechosas boolean,
    out reintentos bigint[], out suscriptores text[])
language plpgsql as $$
#variable_conflict use_column
declare
    ahora constant timestamptz := clock_timestamp();          -- a constant bounds the range, a volatile call does not
    carriles smallint[] := '{0,1,2,3,4,5,6,7,8,9}';
begin
    -- Mostly nothing is due, and a look that only reads says so for less than half. Deliveries whose worker died are few, so
    -- what they leave behind is not in the way; two in one worker's hands would both be blamed for its death.
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
-- Due retries come first, at most half of the claim; then events of the first lane that has any, in window order. One claim
-- in two, and one that finds nothing else, gets a delivery whose worker died, if there is one, alone: what kills a process
-- takes nothing along. Where a publisher has just rung (`timbre`) new events come first, and retries only if there are none:
-- the claim that settles this batch asks again without it, so they wait for one batch at most.
-- Locks   the caller has the group's turn; those of cauce.tomar_reintentos
create function cauce.elegir(
    grupo text, aplicacion text, trabajador text, maximo integer, timbre boolean,
    out ids bigint[], out reintentos bigint[], out suscriptores text[], out sospechosa boolean)
language plpgsql as $$
declare
    -- drawn, not counted: groups whose claims alternate would always get the same turns
    muerta_primero constant boolean := random() < 0.5;
    reintento_primero constant boolean := random() < 0.5;      -- in a claim of one, which cannot be halved
    r record;
begin
    ids := '{}';
    reintentos := '{}';
    suscriptores := '{}';
    sospechosa := false;
    if timbre then
        ids := cauce.siguientes(grupo, maximo);
        if cardinality(ids) > 0 then
            return;
        end if;
    elsif muerta_primero then
        r := cauce.tomar_reintentos(grupo, aplicacion, trabajador, 1, true);
        sospechosa := r.reintentos is not null;
    end if;
    if not sospechosa then
        r := cauce.tomar_reintentos(grupo, aplicacion, trabajador, case when maximo > 1 then maximo / 2 else reintento_primero::integer end, false);
        if not timbre and coalesce(cardinality(r.reintentos), 0) < maximo then
            ids := cauce.siguientes(grupo, maximo - coalesce(cardinality(r.reintentos), 0));
        end if;
        if r.reintentos is null and cardinality(ids) = 0 then
            if maximo = 1 then
                r := cauce.tomar_reintentos(grupo, aplicacion, trabajador, 1, false);
            end if;
            if r.reintentos is null and (timbre or not muerta_primero) then
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

-- Takes deliveries of events that somebody deleted by hand out of a lote; returns whether anything is left in it.
create function cauce.soltar_borrados(lote bigint) returns boolean
language plpgsql as $$
#variable_conflict use_column
declare
    l cauce.lotes;
    r record;                 -- those that are left
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

-- Hands the next deliveries of a group to a worker, under a lease of `arriendo`.
--
-- Returns one row a delivery: `suscriptor` is null for an event that comes for the first time (every subscriber of the
-- group is due), '*' for one handed out again whole, a name for a single retry. No row: nothing is due.
-- `version` is that of the group's subscriptions, read after the events were chosen: whatever was subscribed before one of
-- them was published counts in it.
-- Order     that of cauce.elegir, retries before new events
-- Locks     the group's turn, to the end of the transaction: one claim of a group at a time
-- Index     those of the functions it calls; entregas_pkey and eventos_pkey for the rows; all pinned by its settings
-- Owner     a worker of any application claims new events; retries go to workers of the application they wait for
-- Isolation a READ COMMITTED transaction of its own
-- Disk      a claim of new events does not wait for the disk: if a server crash undoes it, the events are claimed again,
--           and the token tells the two claims apart. It waits if it is `prudente`, as claims of workers are after a crash:
--           what they hold may have caused it, and must be counted. A claim with retries waits: it counts their attempts.
create function cauce.tomar(
    grupo text, maximo integer, trabajador text, arriendo interval, prudente boolean default false,
    aplicacion text default '', timbre boolean default false)
returns table (
    lote bigint, ficha bigint, suscriptor text, intento integer, caidas smallint,
    id bigint, origen text, tipo text, clave text, id_externo text, prioridad smallint,
    creado_en timestamptz, payload text, cabeceras text, version bigint)
language plpgsql
-- A burst on a table that nobody analyzed must not flip these plans, and no connection pool may lose the settings.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    turno bigint;             -- the lote's number, drawn when there is something for it: a look writes nothing
    marca bigint;
    r record;                 -- what was chosen
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
    r := cauce.elegir($1, $6, $3, $2, $7);
    if cardinality(r.reintentos) = 0 and (cardinality(r.ids) = 0 or not prudente) then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if cardinality(r.reintentos) + cardinality(r.ids) = 0 then
        return;                                               -- at most windows were saved
    end if;
    turno := nextval('cauce.lotes_id');
    insert into cauce.lotes as l (id, grupo, aplicacion, ids, reintentos, suscriptores, sospechosa, trabajador, arriendo_hasta)
    values (turno, $1, $6, r.ids, r.reintentos, r.suscriptores, r.sospechosa, $3, clock_timestamp() + $4)
    returning l.ficha into marca;
    if cardinality(r.reintentos) > 0 then
        return query
        select turno, marca, d.suscriptor, d.intentos + 1, d.caidas, e.id, e.origen::text, e.tipo::text, e.clave::text,
               e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text,
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
    -- From a later statement than the ones that chose them: an older snapshot would not see them all.
    return query
    select turno, marca, null::text, 1, 0::smallint, e.id, e.origen::text, e.tipo::text, e.clave::text,
           e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text,
           (select g.version from cauce.grupos g where g.grupo = $1)
      from unnest(r.ids) with ordinality u(id, o) join cauce.eventos e on e.id = u.id order by u.o;
    get diagnostics encontrados = row_count;
    if encontrados <> cardinality(r.ids) then
        raise exception 'lote % claimed % events, % of them exist', turno, cardinality(r.ids), encontrados;
    end if;
end $$;
