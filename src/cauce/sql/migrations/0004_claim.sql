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

-- The next ids of one lane, at most `maximo`, in window order; moves the group's position in that lane.
-- Locks   the caller holds the group's lock
-- Index   eventos_log, as an index-only range from the position; pinned by the settings on cauce.tomar
create function cauce.avanzar(grupo text, carril smallint, maximo integer) returns bigint[]
language plpgsql as $$
#variable_conflict use_variable
declare
    p record;
    ids bigint[] := '{}';
    tanda record;
    frontera xid8;                    -- xmax(desde): stragglers lie before it
    terminadas xid8[];                -- in progress at desde, finished in hasta
    faltan integer := maximo;
    cuantos integer;
    hallados integer;
    gastado double precision;
    abierta boolean := false;
    rezagadas boolean := false;
    comienzo timestamptz;
    paciencia constant double precision := 0.001;
    lenta constant interval := '2 ms';
begin
    select q.n, q.desde, q.hasta, q.orden, q.id into p from cauce.posiciones q
     where q.grupo = avanzar.grupo and q.carril = avanzar.carril order by q.n desc limit 1;
    if not found then
        raise exception 'group % has no position in lane %', grupo, carril
            using errcode = 'CA004', hint = 'Run: cauce migrate module:bus';
    end if;
    if pg_snapshot_xmax(p.hasta) > pg_snapshot_xmax(pg_current_snapshot()) then
        perform cauce.comprobar_restauracion(), cauce.comprobar_instancia();
    end if;
    <<ventana>>
    loop
        frontera := pg_snapshot_xmax(p.desde);
        if p.orden < frontera and pg_snapshot_xmin(p.desde) < frontera then
            terminadas := array(select x from pg_snapshot_xip(p.desde) x where pg_visible_in_snapshot(x, p.hasta) order by x);
            if cardinality(terminadas) > 0 then
                rezagadas := true;
                if p.orden < terminadas[1] then
                    p.orden := terminadas[1];
                    p.id := 0;
                end if;
                select array_agg(r.id) ids, (array_agg(r.orden))[count(*)] orden into tanda from (
                    select e.id, e.orden from cauce.eventos e
                     where e.carril = avanzar.carril and (e.orden, e.id) > (p.orden, p.id) and e.orden < frontera
                       and e.tx = any (terminadas)
                     order by e.orden, e.id limit faltan) r;
                if tanda.ids is not null then
                    ids := ids || tanda.ids;
                    faltan := maximo - cardinality(ids);
                    p.orden := tanda.orden;
                    p.id := ids[cardinality(ids)];
                    exit when faltan = 0;
                end if;
            end if;
        end if;
        if p.orden < frontera then
            p.orden := frontera;
            p.id := 0;
        end if;
        if p.orden < pg_snapshot_xmax(p.hasta) then
            comienzo := clock_timestamp();
            -- Whoever was in progress may have left rows in between that nobody may see, thousands for each that is
            -- found. Only looking tells: so a few first, and as many more as there is time for at that pace.
            cuantos := case when pg_snapshot_xmax(p.hasta)::text::bigint - pg_snapshot_xmin(p.hasta)::text::bigint > 1
                            then least(faltan, 4) else faltan end;
            hallados := 0;
            loop
                select array_agg(r.id) ids, (array_agg(r.orden))[count(*)] orden into tanda from (
                    select e.id, e.orden from cauce.eventos e
                     where e.carril = avanzar.carril and (e.orden, e.id) > (p.orden, p.id)
                       and e.orden < pg_snapshot_xmax(p.hasta) and pg_visible_in_snapshot(e.tx, p.hasta)
                     order by e.orden, e.id limit cuantos) r;
                exit when tanda.ids is null;
                ids := ids || tanda.ids;
                faltan := maximo - cardinality(ids);
                p.orden := tanda.orden;
                p.id := ids[cardinality(ids)];
                exit ventana when faltan = 0;
                exit when cardinality(tanda.ids) < cuantos;
                gastado := greatest(extract(epoch from clock_timestamp() - comienzo), 0.000001);
                hallados := hallados + cuantos;
                cuantos := least(faltan, floor(hallados * (paciencia - gastado) / gastado));
                exit ventana when cuantos < 1;
            end loop;
        end if;
        p.orden := pg_snapshot_xmax(p.hasta);
        p.id := 0;
        exit when abierta;
        abierta := true;
        p.desde := p.hasta;
        p.hasta := cauce.foto();
        p.orden := '0';
    end loop;
    -- An empty window is not worth a write, unless reading it again would cost: it had stragglers, or rows that nobody
    -- may see yet, or it has grown old (retention waits for it).
    if cardinality(ids) > 0 or rezagadas or clock_timestamp() - comienzo > lenta
       or pg_snapshot_xmax(p.hasta)::text::bigint - pg_snapshot_xmax(p.desde)::text::bigint > 10000 then
        insert into cauce.posiciones (grupo, carril, n, desde, hasta, orden, id)
        values (avanzar.grupo, avanzar.carril, p.n + 1, p.desde, p.hasta, p.orden, p.id);
        delete from cauce.posiciones q where q.grupo = avanzar.grupo and q.carril = avanzar.carril and q.n = p.n;
    end if;
    return ids;
end $$;

-- Leases due rows of entregas of an application to the lote: at most `maximo` of them; or, of those whose worker died, a
-- single one, unless this worker has one in hand.
-- Locks   skip locked: an operator or a settling worker may hold some
-- Index   entregas_debidas
create function cauce.tomar_reintentos(
    grupo text, aplicacion text, trabajador text, lote bigint, maximo integer, sospechosas boolean) returns integer
language plpgsql as $$
declare
    cuantas integer;
begin
    if not exists (select from cauce.entregas d
                    where d.grupo = tomar_reintentos.grupo and d.aplicacion = tomar_reintentos.aplicacion and d.lote is null 
                      and d.estado = 'pendiente' and (d.caidas > 0) = sospechosas and d.prioridad between 0 and 9) then
        return 0;
    end if;
    -- two in one worker's hands would both be blamed for its death
    if sospechosas and exists (select from cauce.entregas d join cauce.lotes l on l.id = d.lote
                                where d.lote is not null and d.caidas > 0 and l.trabajador = tomar_reintentos.trabajador) then
        return 0;
    end if;
    with debidas as materialized (
        select d.evento, d.suscriptor
          from generate_series(0, 9) nivel
         cross join lateral (
            select q.evento, q.suscriptor, q.proximo_en from cauce.entregas q
             where q.grupo = tomar_reintentos.grupo and q.aplicacion = tomar_reintentos.aplicacion
               and q.lote is null and q.estado = 'pendiente' and (q.caidas > 0) = sospechosas and q.prioridad = nivel
               and q.proximo_en <= clock_timestamp()
             order by q.proximo_en, q.evento limit maximo for update skip locked) d
         limit maximo)
    update cauce.entregas d set lote = tomar_reintentos.lote, intentos = d.intentos + 1
      from debidas b
     where d.evento = b.evento and d.grupo = tomar_reintentos.grupo and d.suscriptor = b.suscriptor;
    get diagnostics cuantas = row_count;
    return cuantas;
end $$;

-- Hands the next deliveries of a group to a worker, under a lease of `arriendo`.
--
-- Returns one row a delivery: `suscriptor` is null for an event that comes for the first time (every subscriber of the
-- group is due), '*' for one handed out again whole, a name for a single retry. No row: nothing is due.
-- Order     due retries, at most half of the claim; then events of the first lane that has any, in window order. One
--           claim in 20, by lot, begins with the lane whose oldest event has waited longest. One in two begins with a
--           delivery whose worker died, if there is one, alone: what kills a process shall not take others with it.
-- Locks     the group's claim lock (advisory, to the end of the transaction): one claim of a group at a time
-- Whose     new events are any application's; retries come to the workers of the application that they wait for
-- Isolation a READ COMMITTED transaction of its own
-- Disk      a claim of new events does not wait for it, unless it is `prudente`: one that a server crash undoes is made
--           again, and the token tells the two apart. After a crash workers are: what they claim may have caused it, and
--           must be counted. With retries it always waits, for it counts their attempts.
create function cauce.tomar(
    grupo text, maximo integer, trabajador text, arriendo interval, prudente boolean default false, aplicacion text default '')
returns table (
    lote bigint, ficha bigint, suscriptor text, intento integer, caidas smallint,
    id bigint, origen text, tipo text, clave text, id_externo text, prioridad smallint,
    creado_en timestamptz, payload text, cabeceras text)
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
    turno constant bigint := nextval('cauce.lotes_id');       -- numbers the claim, and its lote if it finds anything
    -- drawn, not counted: groups whose claims alternate would always get the same turns
    suerte constant double precision := random();
    marca bigint;
    ids bigint[] := '{}';
    reintentos integer := 0;
    nivel smallint;
    encontrados bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'cauce.tomar needs READ COMMITTED: it must see what was committed a moment ago'
            using errcode = 'CA005', hint = 'Claim in a transaction of its own, begun with: begin isolation level read committed';
    end if;
    if current_setting('cauce.comprobada', true) is distinct from 'si' then
        perform cauce.comprobar_instancia();
    end if;
    perform pg_advisory_xact_lock(1128355140, hashtext($1));
    if suerte < 0.5 then
        reintentos := cauce.tomar_reintentos($1, $6, $3, turno, 1, true);
    end if;
    if reintentos = 0 then
        reintentos := cauce.tomar_reintentos($1, $6, $3, turno,
                                             case when $2 > 1 then $2 / 2 else (random() < 0.5)::integer end, false);
        if reintentos < $2 then
            foreach nivel in array case when suerte < 0.05 then cauce.carriles_por_espera($1)
                                        else '{0,1,2,3,4,5,6,7,8,9}'::smallint[] end loop
                ids := cauce.avanzar($1, nivel, $2 - reintentos);
                exit when cardinality(ids) > 0;
            end loop;
        end if;
        if reintentos = 0 and cardinality(ids) = 0 and $2 = 1 then
            reintentos := cauce.tomar_reintentos($1, $6, $3, turno, 1, false);
        end if;
        if reintentos = 0 and cardinality(ids) = 0 then
            reintentos := cauce.tomar_reintentos($1, $6, $3, turno, 1, true);
        end if;
    end if;
    if reintentos = 0 and cardinality(ids) = 0 then
        perform set_config('synchronous_commit', 'off', true);   -- at most windows were saved: losing them loses nothing
        return;
    end if;
    if reintentos = 0 and not prudente then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    insert into cauce.lotes as l (id, grupo, aplicacion, ids, reintentos, trabajador, arriendo_hasta)
    values (turno, $1, $6, ids, reintentos, $3, clock_timestamp() + $4) returning l.ficha into marca;
    if reintentos > 0 then
        return query
        select turno, marca, d.suscriptor, d.intentos, d.caidas, e.id, e.origen::text, e.tipo::text, e.clave::text,
               e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text
          from cauce.entregas d join cauce.eventos e on e.id = d.evento
         where d.lote = turno;
        get diagnostics encontrados = row_count;
        if encontrados <> reintentos then   -- somebody deleted events by hand: their deliveries go after them
            delete from cauce.entregas d where d.lote = turno and not exists (select from cauce.eventos e where e.id = d.evento);
            raise warning 'group %: % deliveries of events that were deleted are dropped', $1, reintentos - encontrados;
            if encontrados + cardinality(ids) = 0 then
                delete from cauce.lotes l where l.id = turno;
                return;
            end if;
            update cauce.lotes l set reintentos = encontrados where l.id = turno;
        end if;
    end if;
    -- From a later statement than the ones that chose them: an older snapshot would not see them all.
    return query
    select turno, marca, null::text, 1, 0::smallint, e.id, e.origen::text, e.tipo::text, e.clave::text,
           e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text
      from unnest(ids) with ordinality u(id, o) join cauce.eventos e on e.id = u.id order by u.o;
    get diagnostics encontrados = row_count;
    if encontrados <> cardinality(ids) then
        raise exception 'lote % claimed % events, % of them exist', turno, cardinality(ids), encontrados;
    end if;
end $$;

-- The lanes of a group, the one whose oldest waiting event was published first before the others. All of them: one that
-- lost its position is for cauce.avanzar to report.
create function cauce.carriles_por_espera(grupo text) returns smallint[]
language sql as $$
    select array_agg(l.carril order by espera.creado_en nulls last, l.carril)
      from (select generate_series(0, 9)::smallint carril) l
      left join lateral (select p.orden, p.id from cauce.posiciones p
                          where p.grupo = carriles_por_espera.grupo and p.carril = l.carril order by p.n desc limit 1) p on true
      left join lateral (select e.creado_en from cauce.eventos e
                          where e.carril = l.carril and (e.orden, e.id) > (p.orden, p.id)
                          order by e.orden, e.id limit 1) espera on true
$$;
