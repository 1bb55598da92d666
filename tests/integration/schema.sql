CREATE SCHEMA cauce;

CREATE TYPE cauce.estado AS ENUM (
    'pendiente',
    'en_proceso',
    'procesado',
    'error'
);

CREATE DOMAIN cauce.nivel AS smallint
	CONSTRAINT nivel_check CHECK (((VALUE >= 0) AND (VALUE <= 9)));

CREATE DOMAIN cauce.nombre AS character varying(255)
	CONSTRAINT nombre_check CHECK (((VALUE)::text <> ''::text));

CREATE FUNCTION cauce.actualizar_estado(tocados bigint[]) RETURNS void
    LANGUAGE sql
    AS $$
    update cauce.eventos e
       set estado = q.estado,
           procesado_en = case when q.estado = 'procesado' then coalesce(e.procesado_en, clock_timestamp()) end
      from (
        select t.id,
               case when bool_or(d.estado = 'error') then 'error'
                    when count(d.evento) = 0 then 'procesado'
                    when bool_and(d.suscriptor = '*' and d.intentos = 0) then 'pendiente'
                    else 'en_proceso' end::cauce.estado estado
          from unnest(tocados) t(id)
          left join cauce.entregas d on d.evento = t.id and d.grupo = 'principal'
         group by t.id) q
     where e.id = q.id and (e.estado, e.procesado_en is null) is distinct from (q.estado, q.estado <> 'procesado')
$$;

CREATE FUNCTION cauce.anotar_entregas(grupo text, lote bigint, trabajador text, nuevos bigint[], entregas jsonb, ahora timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $_$
#variable_conflict use_column
declare
    acabadas bigint;      -- rows written, to be compared with what was reported
begin
    -- What is reported must be in this lote: an event that comes for the first time, or is handed out whole, or a stored
    -- delivery under its lease. After a lost connection the same report may come twice.
    if exists (select from jsonb_to_recordset($5) r(evento bigint, suscriptor text)
                where r.evento <> all ($4)
                  and not exists (select from cauce.entregas d where d.evento = r.evento and d.grupo = $1
                                     and d.suscriptor in (r.suscriptor, '*') and d.lote = $2)) then
        raise exception 'lote % no longer holds a delivery it reports', $2 using errcode = 'CA001';
    end if;
    delete from cauce.entregas d
     using jsonb_to_recordset($5) r(evento bigint, suscriptor text, resultado text)
     where d.evento = r.evento and d.grupo = $1 and d.suscriptor = r.suscriptor and d.lote = $2 and r.resultado = 'hecha';
    get diagnostics acabadas = row_count;
    if acabadas <> (select count(*) from jsonb_to_recordset($5) r(resultado text) where r.resultado = 'hecha') then
        raise exception 'lote % no longer holds a delivery it reports as done', $2 using errcode = 'CA001';
    end if;

    delete from cauce.entregas d
     using jsonb_to_recordset($5) r(evento bigint, suscriptor text, resultado text)
     where d.evento = r.evento and d.grupo = $1 and d.suscriptor = r.suscriptor and d.lote = $2 and r.resultado = 'ignorada';

    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, traza, trabajador)
    select r.evento, $1, r.suscriptor, r.intento, r.error, r.traza, $3
      from jsonb_to_recordset($5)
           r(evento bigint, suscriptor text, resultado text, intento integer, error text, traza text)
     where r.resultado in ('reintentar', 'muerta');

    insert into cauce.entregas as d (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en, lote, error)
    select r.evento, $1, r.suscriptor, e.prioridad,
           case r.resultado when 'muerta' then 'error' else 'pendiente' end::cauce.estado,
           r.intento - (r.resultado = 'devuelta')::integer,
           $6 + make_interval(secs => coalesce(r.espera, 0)),
           case r.resultado when 'retenida' then $2 end, r.error
      from jsonb_to_recordset($5)
           r(evento bigint, suscriptor text, resultado text, intento integer, error text, espera double precision)
      join cauce.eventos e on e.id = r.evento
     where r.resultado in ('reintentar', 'muerta', 'devuelta', 'retenida')
    on conflict (evento, grupo, suscriptor) do update
       set estado = excluded.estado, intentos = excluded.intentos, proximo_en = excluded.proximo_en, lote = excluded.lote,
           error = coalesce(excluded.error, d.error),
           caidas = case when excluded.error is null then d.caidas else 0 end
     where d.lote = $2;
    get diagnostics acabadas = row_count;
    if acabadas <> (select count(*) from jsonb_to_recordset($5) r(evento bigint, resultado text)
                      join cauce.eventos e on e.id = r.evento
                     where r.resultado in ('reintentar', 'muerta', 'devuelta', 'retenida')) then
        raise exception 'lote % no longer holds a delivery it reports', $2 using errcode = 'CA001';
    end if;

    if $1 = 'principal' then
        update cauce.eventos e
           set intentos = greatest(e.intentos, q.intento), ultimo_error = coalesce(q.error, e.ultimo_error),
               ignorado = e.ignorado or q.ignorado
          from (select r.evento, max(r.intento - (r.resultado = 'devuelta')::integer)::smallint intento,
                       (array_agg(r.error order by r.intento desc) filter (where r.error is not null))[1] error,
                       bool_or(r.resultado = 'ignorada') ignorado
                  from jsonb_to_recordset($5)
                       r(evento bigint, suscriptor text, resultado text, intento integer, error text)
                 group by r.evento) q
         where e.id = q.evento;
    end if;
end $_$;

CREATE FUNCTION cauce.anotar_exito_de_destino(destino text) RETURNS void
    LANGUAGE sql
    AS $$
    update cauce.destinos d set fallando_desde = null
     where d.destino = anotar_exito_de_destino.destino and d.fallando_desde is not null
$$;

CREATE FUNCTION cauce.anotar_fallo_de_destino(destino text, error text, plazo interval) RETURNS text
    LANGUAGE sql
    AS $$
    insert into cauce.destinos as d (destino, fallando_desde, ultimo_fallo_en, ultimo_error)
    values (anotar_fallo_de_destino.destino, clock_timestamp(), clock_timestamp(), anotar_fallo_de_destino.error)
    on conflict (destino) do update
       set fallando_desde = coalesce(d.fallando_desde, excluded.fallando_desde),
           ultimo_fallo_en = excluded.ultimo_fallo_en,
           ultimo_error = excluded.ultimo_error,
           deshabilitado_en = case when d.deshabilitado_en is null and d.fallando_desde < clock_timestamp() - plazo
                                   then clock_timestamp() else d.deshabilitado_en end,
           motivo = case when d.deshabilitado_en is null and d.fallando_desde < clock_timestamp() - plazo
                         then format('every delivery since %s has failed; the last: %s', d.fallando_desde, excluded.ultimo_error)
                         else d.motivo end
    returning motivo
$$;

CREATE FUNCTION cauce.avanzar(grupo text, carril smallint, maximo integer) RETURNS bigint[]
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
declare
    p record;
    ids bigint[] := '{}';
    tanda record;
    frontera xid8;                    -- xmax(desde): stragglers lie before it
    terminadas xid8[];                -- in progress at desde, finished in hasta
    faltan integer := maximo;
    abierta boolean := false;
    rezagadas boolean := false;
    comienzo timestamptz;
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
            select array_agg(r.id) ids, (array_agg(r.orden))[count(*)] orden into tanda from (
                select e.id, e.orden from cauce.eventos e
                 where e.carril = avanzar.carril and (e.orden, e.id) > (p.orden, p.id)
                   and e.orden < pg_snapshot_xmax(p.hasta) and pg_visible_in_snapshot(e.tx, p.hasta)
                 order by e.orden, e.id limit faltan) r;
            if tanda.ids is not null then
                ids := ids || tanda.ids;
                faltan := maximo - cardinality(ids);
                p.orden := tanda.orden;
                p.id := ids[cardinality(ids)];
                exit when faltan = 0;
            end if;
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

CREATE FUNCTION cauce.carriles_por_espera(grupo text) RETURNS smallint[]
    LANGUAGE sql
    AS $$
    select array_agg(l.carril order by espera.creado_en nulls last, l.carril)
      from (select generate_series(0, 9)::smallint carril) l
     cross join lateral (select p.orden, p.id from cauce.posiciones p
                          where p.grupo = carriles_por_espera.grupo and p.carril = l.carril order by p.n desc limit 1) p
      left join lateral (select e.creado_en from cauce.eventos e
                          where e.carril = l.carril and (e.orden, e.id) > (p.orden, p.id)
                          order by e.orden, e.id limit 1) espera on true
$$;

CREATE FUNCTION cauce.completar_evento() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
declare
    nivel smallint;
    campo text;
begin
    if current_setting('cauce.comprobada', true) is distinct from 'si' then
        perform cauce.comprobar_instancia();
    end if;
    if new.tx <> pg_current_xact_id()
       or new.orden <> new.tx and (new.orden < new.tx or new.orden >= pg_snapshot_xmax(pg_current_snapshot())) then
        raise exception 'tx and orden are written by the database, not by the publisher (got %, %)', new.tx, new.orden
            using errcode = 'CA003', hint = 'Leave tx, orden, id and carril out of the INSERT.';
    end if;
    select c.prioridad, c.clave into nivel, campo from cauce.catalogo c
     where c.origen = new.origen and c.tipo = new.tipo;
    if nivel is null then
        select c.prioridad into nivel from cauce.catalogo c where c.origen = new.origen and c.tipo = '*';
    end if;
    new.prioridad := coalesce(new.prioridad, nivel, 5);
    new.carril := new.prioridad;
    if campo is not null and new.clave is null then
        new.clave := new.payload ->> campo;
    end if;
    if current_setting('cauce.timbre', true) is distinct from 'no'
       and not (pg_try_advisory_lock(1128355139, 0) and pg_advisory_unlock(1128355139, 0)) then
        perform cauce.tocar_timbre();
    end if;
    return new;
end $$;

CREATE FUNCTION cauce.comprobar_instancia() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    visto constant bigint := cauce.xid_visto();
    actual constant bigint := greatest(pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1);
begin
    if visto > actual then
        raise exception 'this database was restored into a younger PostgreSQL cluster: it has seen transaction %, the cluster is at %',
            visto, actual
            using errcode = 'CA002',
                  hint = 'Nothing was published or claimed. Restore into a cluster whose transaction counter is ahead '
                         '(pg_resetwal -x on the new cluster before the restore), then try again.';
    end if;
    perform set_config('cauce.comprobada', 'si', false);
end $$;

CREATE FUNCTION cauce.comprobar_restauracion() RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    visto constant bigint := cauce.xid_visto();
begin
    if visto >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint and visto > pg_current_xact_id()::text::bigint then
        update cauce.instancia set xid = visto::text::xid8;
        perform set_config('cauce.comprobada', 'no', false);
        return;
    end if;
    update cauce.instancia set xid = pg_current_xact_id() where xid < pg_current_xact_id();
end $$;

CREATE FUNCTION cauce.conocido(grupo text, suscriptor text, origen text, tipo text, OUT en_catalogo boolean, OUT en_grupo boolean) RETURNS record
    LANGUAGE sql STABLE
    AS $$
    select exists (select from cauce.catalogo c where c.origen = conocido.origen and c.tipo = conocido.tipo),
           exists (select from cauce.suscripciones s where s.grupo = conocido.grupo
                      and s.origen = conocido.origen and s.tipo = conocido.tipo and conocido.suscriptor in ('*', s.suscriptor))
$$;

CREATE FUNCTION cauce.crear_grupo(grupo text, desde_el_principio boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    nada constant pg_snapshot := '1:1:';      -- nothing is visible in it
    inicio pg_snapshot := case when crear_grupo.desde_el_principio or crear_grupo.grupo = 'principal' then nada
                               else cauce.foto() end;
begin
    insert into cauce.grupos (grupo) values (crear_grupo.grupo) on conflict do nothing;
    if found then
        insert into cauce.posiciones (grupo, carril, n, desde, hasta, orden, id)
        select crear_grupo.grupo, carril, 1, inicio, inicio, pg_snapshot_xmax(inicio), 0
          from generate_series(0, 9) carril;
    end if;
end $$;

CREATE FUNCTION cauce.descartar(evento bigint, grupo text DEFAULT NULL::text, suscriptor text DEFAULT NULL::text) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    cuantas integer;
    de_principal boolean;
begin
    perform 1 from cauce.eventos e where e.id = descartar.evento for no key update;
    with fuera as (
        delete from cauce.entregas d
         where d.evento = descartar.evento and d.lote is null
           and d.grupo = coalesce(descartar.grupo, d.grupo) and d.suscriptor = coalesce(descartar.suscriptor, d.suscriptor)
        returning d.evento, d.grupo, d.suscriptor, d.intentos),
    apuntes as (
        insert into cauce.fallos (evento, grupo, suscriptor, intento, error)
        select f.evento, f.grupo, f.suscriptor, f.intentos, 'discarded by hand' from fuera f)
    select count(*), bool_or(f.grupo = 'principal') into cuantas, de_principal from fuera f;
    if de_principal then
        update cauce.eventos e set ignorado = true where e.id = descartar.evento;
        perform cauce.actualizar_estado(array[descartar.evento]);
    end if;
    return cuantas;
end $$;

CREATE FUNCTION cauce.deshabilitar_destino(destino text, motivo text) RETURNS void
    LANGUAGE sql
    AS $$
    insert into cauce.destinos as d (destino, deshabilitado_en, motivo)
    values (deshabilitar_destino.destino, clock_timestamp(), deshabilitar_destino.motivo)
    on conflict (destino) do update
       set deshabilitado_en = excluded.deshabilitado_en, motivo = excluded.motivo where d.deshabilitado_en is null
$$;

CREATE FUNCTION cauce.foto() RETURNS pg_snapshot
    LANGUAGE plpgsql
    AS $$
declare
    s pg_snapshot := pg_current_snapshot();
    propia xid8 := pg_current_xact_id_if_assigned();
begin
    if propia is null or propia >= pg_snapshot_xmax(s) then
        return s;
    end if;
    return (select format('%s:%s:%s', least(propia, pg_snapshot_xmin(s)), pg_snapshot_xmax(s), string_agg(x::text, ',' order by x))
              from (select pg_snapshot_xip(s) x union select propia) u)::pg_snapshot;
end $$;

CREATE FUNCTION cauce.guardar_catalogo(tipos jsonb, suscripciones jsonb, reemplazar boolean) RETURNS void
    LANGUAGE plpgsql
    AS $_$
#variable_conflict use_column
begin
    perform pg_advisory_xact_lock(1128355141, 0);
    insert into cauce.catalogo as c (origen, tipo, prioridad, clave)
    select t.origen, t.tipo, t.prioridad, t.clave
      from jsonb_to_recordset($1) t(origen text, tipo text, prioridad smallint, clave text)
    on conflict (origen, tipo) do update
       set prioridad = excluded.prioridad, clave = excluded.clave, actualizado_en = now()
     where (c.prioridad, c.clave) is distinct from (excluded.prioridad, excluded.clave);
    if $3 then
        delete from cauce.suscripciones s
         where s.grupo in (select n.grupo from jsonb_to_recordset($2) n(grupo text))
           and not exists (
                select from jsonb_to_recordset($2) n(grupo text, suscriptor text, origen text, tipo text)
                 where (n.grupo, n.suscriptor, n.origen, n.tipo) = (s.grupo, s.suscriptor, s.origen, s.tipo));
    end if;
    insert into cauce.suscripciones (grupo, suscriptor, origen, tipo)
    select n.grupo, n.suscriptor, n.origen, n.tipo
      from jsonb_to_recordset($2) n(grupo text, suscriptor text, origen text, tipo text)
    on conflict do nothing;
    perform cauce.crear_grupo(n.grupo) from (select distinct r.grupo from jsonb_to_recordset($2) r(grupo text)) n;
end $_$;

CREATE FUNCTION cauce.habilitar_destino(destino text) RETURNS boolean
    LANGUAGE sql
    AS $$
    with antes as materialized (
        select d.destino, d.deshabilitado_en is not null deshabilitado from cauce.destinos d
         where d.destino = habilitar_destino.destino for no key update),
    borrado as (delete from cauce.destinos d using antes a where d.destino = a.destino)
    select coalesce((select a.deshabilitado from antes a), false)
$$;

CREATE FUNCTION cauce.marcar_en_proceso(lotes bigint[], fichas bigint[]) RETURNS bigint
    LANGUAGE sql
    AS $$
    with mios as materialized (
        select e.id from cauce.lotes l
          join unnest(lotes, fichas) u(id, ficha) on l.id = u.id and l.ficha = u.ficha
         cross join unnest(l.ids) i(id)
          join cauce.eventos e on e.id = i.id
         where l.grupo = 'principal' and e.estado = 'pendiente'
         order by e.id for no key update of e skip locked),
    marcados as (
        update cauce.eventos e set estado = 'en_proceso' from mios m where e.id = m.id and e.estado = 'pendiente' returning 1)
    select count(*) from marcados
$$;

CREATE FUNCTION cauce.permitir_publicar(rol text) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    execute format('grant usage on schema cauce to %I', rol);
    execute format('grant select on cauce.catalogo to %I', rol);
    execute format('grant select (id, origen, id_externo) on cauce.eventos to %I', rol);
    execute format('grant insert (origen, tipo, payload, clave, prioridad, id_externo, cabeceras, disponible_en)
                    on cauce.eventos to %I', rol);
    execute format('grant execute on function cauce.publicar_eventos to %I', rol);
end $$;

CREATE FUNCTION cauce.presentar_trabajador(trabajador text, grupos text[], maquina text, pid integer) RETURNS void
    LANGUAGE sql
    AS $$
    insert into cauce.trabajadores as t (trabajador, grupos, maquina, pid)
    values (presentar_trabajador.trabajador, presentar_trabajador.grupos, presentar_trabajador.maquina, presentar_trabajador.pid)
    on conflict (trabajador) do update set visto_en = clock_timestamp();
    delete from cauce.trabajadores t where t.visto_en < clock_timestamp() - interval '1 hour';
$$;

CREATE FUNCTION cauce.publicar_evento(origen text, tipo text, payload jsonb, clave text DEFAULT NULL::text, prioridad smallint DEFAULT NULL::smallint, id_externo text DEFAULT NULL::text, cabeceras jsonb DEFAULT NULL::jsonb) RETURNS bigint
    LANGUAGE plpgsql
    AS $_$
#variable_conflict use_column
declare
    guardado bigint;
begin
    insert into cauce.eventos as e (origen, tipo, payload, clave, prioridad, id_externo, cabeceras)
    values ($1, $2, $3, $4, $5, $6, $7)
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
end $_$;

CREATE FUNCTION cauce.publicar_eventos(eventos jsonb) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    propia constant xid8 := pg_current_xact_id();
    orden constant xid8 := greatest(propia, (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text::xid8);
    ids bigint[] := array(select nextval('cauce.eventos_id_seq') from generate_series(1, jsonb_array_length(eventos)));
    guardados bigint;
begin
    if current_setting('cauce.comprobada', true) is distinct from 'si' then
        perform cauce.comprobar_instancia();
    end if;
    insert into cauce.eventos as e (id, tx, orden, origen, tipo, payload, clave, prioridad, carril, id_externo, cabeceras)
    overriding system value
    select n.id, propia, orden, n.origen, n.tipo, coalesce(n.payload, 'null'), coalesce(n.clave, n.payload ->> c.clave),
           nivel, nivel, n.id_externo, n.cabeceras
      from rows from (
               jsonb_to_recordset(eventos) as (origen text, tipo text, payload jsonb, clave text, prioridad smallint,
                                               id_externo text, cabeceras jsonb),
               unnest(ids)) n(origen, tipo, payload, clave, prioridad, id_externo, cabeceras, id)
      left join cauce.catalogo c on c.origen = n.origen and c.tipo = n.tipo
      left join cauce.catalogo d on d.origen = n.origen and d.tipo = '*' and c.origen is null
     cross join lateral (select coalesce(n.prioridad, c.prioridad, d.prioridad, 5)::smallint nivel) v
    on conflict (origen, id_externo) where id_externo is not null do nothing;
    get diagnostics guardados = row_count;
    if guardados < cardinality(ids) then
        ids := array(
            select coalesce(e.id, n.id)
              from rows from (jsonb_to_recordset(eventos) as (origen text, id_externo text), unnest(ids))
                   with ordinality n(origen, id_externo, id, o)
              left join cauce.eventos e on e.origen = n.origen and e.id_externo = n.id_externo
             order by n.o);
    end if;
    if current_setting('cauce.timbre', true) is distinct from 'no'
       and not (pg_try_advisory_lock(1128355139, 0) and pg_advisory_unlock(1128355139, 0)) then
        perform cauce.tocar_timbre();
    end if;
    return ids;
end $$;

CREATE FUNCTION cauce.purgar(antes interval, maximo integer) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    cuantos bigint;
begin
    with viejos as materialized (
        select e.id from cauce.eventos e
         where e.estado = 'procesado' and e.procesado_en < now() - antes
           and e.id <> all (array(select unnest(l.ids) from cauce.lotes l))
           and not exists (select from cauce.entregas d where d.evento = e.id)
           and not exists (
                select from cauce.grupos g
                 cross join lateral (select p.desde from cauce.posiciones p
                                      where p.grupo = g.grupo and p.carril = e.carril order by p.n desc limit 1) p
                 where not pg_visible_in_snapshot(e.tx, p.desde))
         order by e.id limit maximo),
    sin_fallos as (delete from cauce.fallos f using viejos v where f.evento = v.id),
    borrados as (delete from cauce.eventos e using viejos v where e.id = v.id returning 1)
    select count(*) into cuantos from borrados;
    return cuantos;
end $$;

CREATE FUNCTION cauce.recibir_evento(origen text, tipo text, id_externo text, payload text, cuerpo bytea, cabeceras jsonb, motivo text, OUT id bigint, OUT duplicado boolean) RETURNS record
    LANGUAGE plpgsql
    AS $_$
#variable_conflict use_column
begin
    insert into cauce.eventos as e (origen, tipo, id_externo, payload, cuerpo, cabeceras, estado, ultimo_error)
    values ($1, $2, $3, $4::jsonb, $5, $6, case when $4 is null then 'error' else 'pendiente' end::cauce.estado, $7)
    on conflict (origen, id_externo) where id_externo is not null do nothing
    returning e.id into id;
    duplicado := id is null;
    if duplicado then
        select e.id into id from cauce.eventos e where e.origen = $1 and e.id_externo = $3;
    end if;
end $_$;

CREATE FUNCTION cauce.reintentar(evento bigint, grupo text DEFAULT NULL::text, suscriptor text DEFAULT NULL::text) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    cuantas integer;
begin
    perform 1 from cauce.eventos e where e.id = reintentar.evento for no key update;
    update cauce.entregas d
       set estado = 'pendiente', intentos = 0, caidas = 0, proximo_en = clock_timestamp()
     where d.evento = reintentar.evento and d.lote is null
       and d.grupo = coalesce(reintentar.grupo, d.grupo) and d.suscriptor = coalesce(reintentar.suscriptor, d.suscriptor);
    get diagnostics cuantas = row_count;
    perform cauce.actualizar_estado(array[reintentar.evento]) where cuantas > 0;
    perform pg_notify('cauce', '') where cuantas > 0;
    return cuantas;
end $$;

CREATE FUNCTION cauce.renovar(lotes bigint[], fichas bigint[], arriendo interval) RETURNS SETOF bigint
    LANGUAGE sql
    AS $$
    with vivos as materialized (
        select l.id from cauce.lotes l join unnest(lotes, fichas) u(id, ficha) on l.id = u.id and l.ficha = u.ficha
         order by l.id for no key update of l skip locked),
    renovados as (
        update cauce.lotes l set arriendo_hasta = clock_timestamp() + arriendo
          from vivos v where l.id = v.id returning l.id)
    select l.id from cauce.lotes l join unnest(lotes, fichas) u(id, ficha) on l.id = u.id and l.ficha = u.ficha
$$;

CREATE FUNCTION cauce.rescatar(limite_caidas integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    l record;
    cuantos integer := 0;
    tocados bigint[];
begin
    for l in select q.* from cauce.lotes q where q.arriendo_hasta < clock_timestamp() order by q.id for update skip locked loop
        tocados := l.ids || array(select d.evento from cauce.entregas d where d.lote = l.id);
        if l.grupo = 'principal' then
            perform 1 from cauce.eventos e where e.id = any (tocados) order by e.id for no key update;
        end if;
        delete from cauce.lotes q where q.id = l.id;
        with otra_vez as (
            update cauce.entregas d
               set lote = null, caidas = d.caidas + 1, proximo_en = clock_timestamp(),
                   estado = case when d.caidas + 1 >= limite_caidas then 'error' else 'pendiente' end::cauce.estado
             where d.lote = l.id
            returning d.evento, d.suscriptor, d.intentos, d.caidas),
        enteras as (
            insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, caidas, proximo_en)
            select e.id, l.grupo, '*', e.prioridad,
                   case when 1 >= limite_caidas then 'error' else 'pendiente' end::cauce.estado, 1, 1, clock_timestamp()
              from cauce.eventos e where e.id = any (l.ids)
            returning evento, suscriptor, intentos, caidas)
        insert into cauce.fallos (evento, grupo, suscriptor, intento, error, trabajador)
        select d.evento, l.grupo, d.suscriptor, d.intentos,
               format('worker %s died or lost its lease while it held this delivery (%s of %s times)',
                      l.trabajador, d.caidas, limite_caidas), l.trabajador
          from (table otra_vez union all table enteras) d;
        if l.grupo = 'principal' then
            update cauce.eventos e set intentos = greatest(e.intentos, d.intentos),
                   ultimo_error = case when d.estado = 'error' then format('%s workers died while they held this event', d.caidas)
                                       else e.ultimo_error end
              from cauce.entregas d where d.evento = e.id and d.grupo = 'principal' and e.id = any (tocados);
            perform cauce.actualizar_estado(tocados);
        end if;
        cuantos := cuantos + 1;
    end loop;
    return cuantos;
end $$;

CREATE FUNCTION cauce.retraso(grupo text, maximo integer) RETURNS TABLE(carril smallint, pendientes bigint, desde timestamp with time zone)
    LANGUAGE sql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
    select l.carril, count(e.creado_en), min(e.creado_en)
      from (select generate_series(0, 9)::smallint carril) l
     cross join lateral (select p.desde, p.hasta, p.orden, p.id from cauce.posiciones p
                          where p.grupo = retraso.grupo and p.carril = l.carril order by p.n desc limit 1) p
      left join lateral (
        select e.creado_en from cauce.eventos e
         where e.carril = l.carril
           and e.orden >= case when p.orden >= pg_snapshot_xmax(p.hasta) then pg_snapshot_xmin(p.hasta)
                               else pg_snapshot_xmin(p.desde) end
           and not pg_visible_in_snapshot(e.tx, p.desde)
           and not (pg_visible_in_snapshot(e.tx, p.hasta) and (e.orden, e.id) <= (p.orden, p.id))
         order by e.orden, e.id limit maximo) e on true
     group by l.carril order by l.carril
$$;

CREATE FUNCTION cauce.terminar(lote bigint, ficha bigint, ids bigint[], entregas jsonb DEFAULT NULL::jsonb) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare
    l cauce.lotes;
    ahora constant timestamptz := clock_timestamp();
    escritos bigint;
    tocados bigint[] := '{}';
begin
    delete from cauce.lotes q where q.id = $1 and q.ficha = $2 returning q.* into l;
    if not found then
        raise exception 'the lease of lote % was lost', $1
            using errcode = 'CA001', hint = 'Another worker has its deliveries now; nothing of this settlement was kept.';
    end if;
    $3 := coalesce($3, l.ids);
    if $3 <> l.ids and not $3 <@ l.ids then
        raise exception 'lote % does not hold all of the events %', $1, $3 using errcode = 'CA006';
    end if;
    if $4 is not null then
        tocados := array(select distinct r.evento from jsonb_to_recordset($4) r(evento bigint) order by 1);
        if l.grupo = 'principal' then
            perform 1 from cauce.eventos e where e.id = any (tocados) order by e.id for no key update;
        end if;
        perform cauce.anotar_entregas(l.grupo, $1, l.trabajador, l.ids, $4, ahora);
    end if;
    if l.grupo = 'principal' then
        update cauce.eventos e set estado = 'procesado', procesado_en = ahora, intentos = greatest(e.intentos, 1)
         where e.id = any ($3) and e.id <> all (tocados);
        get diagnostics escritos = row_count;
        if tocados <> '{}' then
            escritos := escritos + (select count(*) from unnest($3) u(id) where u.id = any (tocados));
        end if;
        if escritos <> cardinality($3) then
            raise exception 'lote % settles events that are not there any more', $1 using errcode = 'CA006';
        end if;
        if tocados <> '{}' then
            perform cauce.actualizar_estado(tocados);
        end if;
    end if;
    if cardinality($3) < cardinality(l.ids) or l.reintentos > 0 or $4 is not null then
        l.ids := array(select u.id from unnest(l.ids) with ordinality u(id, o) where u.id <> all ($3) order by u.o);
        l.reintentos := (select count(*) from cauce.entregas d where d.lote = $1);
        if cardinality(l.ids) + l.reintentos > 0 then
            insert into cauce.lotes values (l.*);
        end if;
    end if;
end $_$;

CREATE FUNCTION cauce.tocar_timbre() RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if pg_try_advisory_xact_lock(1128355139, 1 + ((extract(epoch from clock_timestamp()) * 50)::bigint % 2147483646)::integer) then
        perform pg_notify('cauce', ''), set_config('cauce.timbre', 'no', true);
    end if;
end $$;

CREATE FUNCTION cauce.tomar(grupo text, maximo integer, trabajador text, arriendo interval) RETURNS TABLE(lote bigint, ficha bigint, suscriptor text, intento integer, caidas smallint, id bigint, origen text, tipo text, clave text, id_externo text, prioridad smallint, creado_en timestamp with time zone, payload text, cabeceras text)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $_$
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
        reintentos := cauce.tomar_reintentos($1, $3, turno, 1, true);
    end if;
    if reintentos = 0 then
        reintentos := cauce.tomar_reintentos($1, $3, turno, case when $2 > 1 then $2 / 2 else (random() < 0.5)::integer end, false);
        if reintentos < $2 then
            foreach nivel in array case when suerte < 0.05 then cauce.carriles_por_espera($1)
                                        else '{0,1,2,3,4,5,6,7,8,9}'::smallint[] end loop
                ids := cauce.avanzar($1, nivel, $2 - reintentos);
                exit when cardinality(ids) > 0;
            end loop;
        end if;
        if reintentos = 0 and cardinality(ids) = 0 and $2 = 1 then
            reintentos := cauce.tomar_reintentos($1, $3, turno, 1, false);
        end if;
        if reintentos = 0 and cardinality(ids) = 0 then
            reintentos := cauce.tomar_reintentos($1, $3, turno, 1, true);
        end if;
    end if;
    if reintentos = 0 and cardinality(ids) = 0 then
        perform set_config('synchronous_commit', 'off', true);   -- at most windows were saved: losing them loses nothing
        return;
    end if;
    if reintentos = 0 then
        -- A claim that a server crash undoes is made again, and the token tells the two apart. With retries it counts
        -- their attempts, and a payload that kills the server must be counted.
        perform set_config('synchronous_commit', 'off', true);
    end if;
    insert into cauce.lotes as l (id, grupo, ids, reintentos, trabajador, arriendo_hasta)
    values (turno, $1, ids, reintentos, $3, clock_timestamp() + $4) returning l.ficha into marca;
    if reintentos > 0 then
        return query
        select turno, marca, d.suscriptor, d.intentos, d.caidas, e.id, e.origen::text, e.tipo::text, e.clave::text,
               e.id_externo::text, e.prioridad::smallint, e.creado_en, e.payload::text, e.cabeceras::text
          from cauce.entregas d join cauce.eventos e on e.id = d.evento
         where d.lote = turno;
        get diagnostics encontrados = row_count;
        if encontrados <> reintentos then
            raise exception 'lote % claimed % retries, % of their events exist', turno, reintentos, encontrados;
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
end $_$;

CREATE FUNCTION cauce.tomar_reintentos(grupo text, trabajador text, lote bigint, maximo integer, sospechosas boolean) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    cuantas integer;
begin
    if not exists (select from cauce.entregas d
                    where d.grupo = tomar_reintentos.grupo and d.lote is null and d.estado = 'pendiente'
                      and (d.caidas > 0) = sospechosas and d.prioridad between 0 and 9) then
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
             where q.grupo = tomar_reintentos.grupo and q.lote is null and q.estado = 'pendiente'
               and (q.caidas > 0) = sospechosas and q.prioridad = nivel and q.proximo_en <= clock_timestamp()
             order by q.proximo_en, q.evento limit maximo for update skip locked) d
         limit maximo)
    update cauce.entregas d set lote = tomar_reintentos.lote, intentos = d.intentos + 1
      from debidas b
     where d.evento = b.evento and d.grupo = tomar_reintentos.grupo and d.suscriptor = b.suscriptor;
    get diagnostics cuantas = row_count;
    return cuantas;
end $$;

CREATE FUNCTION cauce.xid_visto() RETURNS bigint
    LANGUAGE sql
    AS $$
    select greatest(
        (select max(ultimo.orden::text::bigint) from generate_series(0, 9) l(carril) cross join lateral (
            select e.orden from cauce.eventos e where e.carril = l.carril order by e.orden desc, e.id desc limit 1) ultimo),
        (select max(pg_snapshot_xmax(p.hasta)::text::bigint) - 1
           from cauce.grupos g cross join generate_series(0, 9) l(carril) cross join lateral (
            select q.hasta from cauce.posiciones q
             where q.grupo = g.grupo and q.carril = l.carril order by q.n desc limit 1) p),
        (select xid::text::bigint from cauce.instancia))
$$;

CREATE TABLE cauce.catalogo (
    origen cauce.nombre NOT NULL,
    tipo cauce.nombre NOT NULL,
    prioridad cauce.nivel NOT NULL,
    clave text,
    actualizado_en timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE cauce.destinos (
    destino cauce.nombre NOT NULL,
    fallando_desde timestamp with time zone,
    ultimo_fallo_en timestamp with time zone,
    ultimo_error text,
    deshabilitado_en timestamp with time zone,
    motivo text,
    CONSTRAINT destinos_motivo CHECK (((deshabilitado_en IS NULL) = (motivo IS NULL)))
)
WITH (fillfactor='70');

CREATE TABLE cauce.entregas (
    evento bigint NOT NULL,
    grupo text NOT NULL,
    suscriptor text NOT NULL,
    prioridad smallint NOT NULL,
    estado cauce.estado DEFAULT 'pendiente'::cauce.estado NOT NULL,
    intentos integer NOT NULL,
    caidas smallint DEFAULT 0 NOT NULL,
    proximo_en timestamp with time zone NOT NULL,
    lote bigint,
    error text,
    creado_en timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT entregas_caidas_check CHECK ((caidas >= 0)),
    CONSTRAINT entregas_estado_check CHECK ((estado = ANY (ARRAY['pendiente'::cauce.estado, 'error'::cauce.estado]))),
    CONSTRAINT entregas_intentos_check CHECK ((intentos >= 0)),
    CONSTRAINT entregas_muerta CHECK ((NOT ((estado = 'error'::cauce.estado) AND (lote IS NOT NULL))))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

CREATE TABLE cauce.eventos (
    id bigint NOT NULL,
    tx xid8 DEFAULT pg_current_xact_id() NOT NULL,
    orden xid8 DEFAULT GREATEST(pg_current_xact_id(), (((((pg_snapshot_xmax(pg_current_snapshot()))::text)::bigint - 1))::text)::xid8) NOT NULL,
    creado_en timestamp with time zone DEFAULT now() NOT NULL,
    disponible_en timestamp with time zone,
    procesado_en timestamp with time zone,
    estado cauce.estado DEFAULT 'pendiente'::cauce.estado NOT NULL,
    intentos smallint DEFAULT 0 NOT NULL,
    ignorado boolean DEFAULT false NOT NULL,
    carril cauce.nivel NOT NULL,
    prioridad cauce.nivel NOT NULL,
    origen cauce.nombre NOT NULL,
    tipo cauce.nombre NOT NULL,
    clave character varying(500),
    id_externo character varying(500),
    ultimo_error text,
    payload jsonb,
    cabeceras jsonb,
    cuerpo bytea,
    CONSTRAINT eventos_contenido CHECK (((payload IS NOT NULL) OR (cuerpo IS NOT NULL))),
    CONSTRAINT eventos_procesado CHECK (((estado = 'procesado'::cauce.estado) = (procesado_en IS NOT NULL)))
)
WITH (fillfactor='50');

ALTER TABLE cauce.eventos ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cauce.eventos_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE cauce.fallos (
    id bigint NOT NULL,
    evento bigint NOT NULL,
    grupo text NOT NULL,
    suscriptor text NOT NULL,
    intento integer NOT NULL,
    error text NOT NULL,
    traza text,
    trabajador text,
    ocurrido_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE cauce.fallos ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cauce.fallos_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE cauce.grupos (
    grupo cauce.nombre NOT NULL,
    creado_en timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE cauce.instancia (
    unica boolean DEFAULT true NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT instancia_unica_check CHECK (unica)
);

CREATE TABLE cauce.lotes (
    id bigint NOT NULL,
    ficha bigint DEFAULT hashtextextended((gen_random_uuid())::text, (0)::bigint) NOT NULL,
    grupo text NOT NULL,
    ids bigint[] NOT NULL,
    reintentos integer NOT NULL,
    trabajador text NOT NULL,
    tomado_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    arriendo_hasta timestamp with time zone NOT NULL,
    CONSTRAINT lotes_algo CHECK (((cardinality(ids) + reintentos) > 0))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

CREATE SEQUENCE cauce.lotes_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE cauce.migraciones (
    numero integer NOT NULL,
    nombre text NOT NULL,
    aplicada_en timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE cauce.posiciones (
    grupo text NOT NULL,
    carril cauce.nivel NOT NULL,
    n bigint NOT NULL,
    desde pg_snapshot NOT NULL,
    hasta pg_snapshot NOT NULL,
    orden xid8 NOT NULL,
    id bigint NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

CREATE TABLE cauce.suscripciones (
    grupo cauce.nombre NOT NULL,
    suscriptor cauce.nombre NOT NULL,
    origen cauce.nombre NOT NULL,
    tipo cauce.nombre NOT NULL
);

CREATE TABLE cauce.trabajadores (
    trabajador text NOT NULL,
    grupos text[] NOT NULL,
    maquina text NOT NULL,
    pid integer NOT NULL,
    iniciado_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    visto_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
WITH (fillfactor='70');

ALTER TABLE ONLY cauce.catalogo
    ADD CONSTRAINT catalogo_pkey PRIMARY KEY (origen, tipo);

ALTER TABLE ONLY cauce.destinos
    ADD CONSTRAINT destinos_pkey PRIMARY KEY (destino);

ALTER TABLE ONLY cauce.entregas
    ADD CONSTRAINT entregas_pkey PRIMARY KEY (evento, grupo, suscriptor);

ALTER TABLE ONLY cauce.eventos
    ADD CONSTRAINT eventos_pkey PRIMARY KEY (id);

ALTER TABLE ONLY cauce.fallos
    ADD CONSTRAINT fallos_pkey PRIMARY KEY (id);

ALTER TABLE ONLY cauce.grupos
    ADD CONSTRAINT grupos_pkey PRIMARY KEY (grupo);

ALTER TABLE ONLY cauce.instancia
    ADD CONSTRAINT instancia_pkey PRIMARY KEY (unica);

ALTER TABLE ONLY cauce.lotes
    ADD CONSTRAINT lotes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY cauce.migraciones
    ADD CONSTRAINT migraciones_pkey PRIMARY KEY (numero);

ALTER TABLE ONLY cauce.posiciones
    ADD CONSTRAINT posiciones_pkey PRIMARY KEY (grupo, carril, n);

ALTER TABLE ONLY cauce.suscripciones
    ADD CONSTRAINT suscripciones_pkey PRIMARY KEY (grupo, origen, tipo, suscriptor);

ALTER TABLE ONLY cauce.trabajadores
    ADD CONSTRAINT trabajadores_pkey PRIMARY KEY (trabajador);

CREATE INDEX entregas_debidas ON cauce.entregas USING btree (grupo, ((caidas > 0)), prioridad, proximo_en, evento) WHERE ((lote IS NULL) AND (estado = 'pendiente'::cauce.estado));

CREATE INDEX entregas_lote ON cauce.entregas USING btree (lote) WHERE (lote IS NOT NULL);

CREATE INDEX entregas_muertas ON cauce.entregas USING btree (grupo, evento) WHERE (estado = 'error'::cauce.estado);

CREATE UNIQUE INDEX eventos_id_externo_unico ON cauce.eventos USING btree (origen, id_externo) WHERE (id_externo IS NOT NULL);

CREATE INDEX eventos_log ON cauce.eventos USING btree (carril, orden, id) INCLUDE (tx);

CREATE INDEX fallos_evento ON cauce.fallos USING btree (evento);

CREATE TRIGGER eventos_completar BEFORE INSERT ON cauce.eventos FOR EACH ROW WHEN ((new.carril IS NULL)) EXECUTE FUNCTION cauce.completar_evento();

REVOKE ALL ON FUNCTION cauce.publicar_eventos(eventos jsonb) FROM PUBLIC;
