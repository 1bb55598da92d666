CREATE SCHEMA cauce;

CREATE TYPE cauce.estado AS ENUM (
    'pendiente',
    'en_proceso',
    'procesado',
    'error'
);

CREATE TYPE cauce.informe AS (
	evento bigint,
	suscriptor text,
	resultado text,
	intento integer,
	error text,
	espera double precision,
	aplicacion text,
	huella bigint,
	tipo text,
	mensaje text,
	traza text,
	tenida boolean,
	acabada boolean,
	causa bigint
);

CREATE DOMAIN cauce.nivel AS smallint
	CONSTRAINT nivel_check CHECK (((VALUE >= 0) AND (VALUE <= 9)));

CREATE DOMAIN cauce.nombre AS character varying(255)
	CONSTRAINT nombre_check CHECK (((VALUE)::text <> ''::text));

CREATE FUNCTION cauce.actualizar_estado(tocados bigint[], intentos integer[] DEFAULT NULL::integer[], errores text[] DEFAULT NULL::text[], ignorados boolean[] DEFAULT NULL::boolean[]) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.adoptar_entregas(aplicacion text) RETURNS void
    LANGUAGE plpgsql
    AS (...);

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

CREATE FUNCTION cauce.al_dia(posicion cauce.posiciones) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS (...);

CREATE TABLE cauce.lotes (
    id bigint NOT NULL,
    ficha bigint DEFAULT hashtextextended((gen_random_uuid())::text, (0)::bigint) NOT NULL,
    grupo text NOT NULL,
    aplicacion text DEFAULT ''::text NOT NULL,
    ids bigint[] NOT NULL,
    reintentos bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    suscriptores text[] DEFAULT '{}'::text[] NOT NULL,
    sospechosa boolean DEFAULT false NOT NULL,
    trabajador text NOT NULL,
    tomado_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    arriendo_hasta timestamp with time zone NOT NULL,
    a_solas boolean DEFAULT false NOT NULL,
    CONSTRAINT lotes_algo CHECK ((((cardinality(ids) + cardinality(reintentos)) > 0) AND (cardinality(reintentos) = cardinality(suscriptores))))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');
ALTER TABLE ONLY cauce.lotes ALTER COLUMN ids SET STORAGE EXTERNAL;
ALTER TABLE ONLY cauce.lotes ALTER COLUMN reintentos SET STORAGE EXTERNAL;
ALTER TABLE ONLY cauce.lotes ALTER COLUMN suscriptores SET STORAGE EXTERNAL;

CREATE FUNCTION cauce.anotar_entregas(l cauce.lotes, informes cauce.informe[], ahora timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'on'
    SET enable_nestloop TO 'off'
    AS (...);

CREATE FUNCTION cauce.anotar_exito_de_destino(destino text) RETURNS void
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.anotar_fallo_de_destino(destino text, error text, plazo interval) RETURNS text
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.anotar_fallos(l cauce.lotes, informes cauce.informe[]) RETURNS bigint[]
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.anotar_hijo(evento bigint) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.atribuir(desde bigint[], hasta bigint[], causas bigint[], correlaciones bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS (...);

CREATE FUNCTION cauce.avanzar(posicion cauce.posiciones, maximo integer) RETURNS bigint[]
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.avisar() RETURNS boolean
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.bloquear_entregas(grupo text, eventos bigint[], suscriptores text[]) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.causa_actual(OUT causa bigint, OUT correlacion bigint) RETURNS record
    LANGUAGE plpgsql STABLE
    AS (...);

CREATE FUNCTION cauce.completar_evento() RETURNS trigger
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.comprobar_instancia() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS (...);

CREATE FUNCTION cauce.comprobar_restauracion(holgura bigint DEFAULT 0) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.copiados(desde bigint) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS (...);

CREATE FUNCTION cauce.correr_a_solas(lote bigint, ficha bigint) RETURNS boolean
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.crear_grupo(grupo text, desde_el_principio boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS (...);

CREATE FUNCTION cauce.descartar(evento bigint, grupo text DEFAULT NULL::text, suscriptor text DEFAULT NULL::text) RETURNS integer
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.descartar_suscriptor(suscriptor text, grupo text, desde bigint, maximo integer, OUT descartadas bigint, OUT hasta bigint) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS (...);

CREATE FUNCTION cauce.deshabilitar_destino(destino text, motivo text) RETURNS void
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.elegir(grupo text, aplicacion text, trabajador text, maximo integer, OUT ids bigint[], OUT reintentos bigint[], OUT suscriptores text[], OUT sospechosa boolean) RETURNS record
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.es_coherente(estado cauce.estado, procesado_en timestamp with time zone, payload jsonb, cuerpo bytea) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS (...);

CREATE FUNCTION cauce.foto() RETURNS pg_snapshot
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.guardar_catalogo(aplicacion text, tipos jsonb, suscripciones jsonb, reemplazar boolean, quitar boolean DEFAULT false) RETURNS TABLE(grupo text, suscriptor text, origen text, tipo text)
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.habilitar_destino(destino text) RETURNS boolean
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.leer_informe(l cauce.lotes, ids bigint[], entregas jsonb) RETURNS cauce.informe[]
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'on'
    SET enable_nestloop TO 'off'
    AS (...);

CREATE FUNCTION cauce.leer_ventana(INOUT posicion cauce.posiciones, maximo integer, antes bigint, OUT ids bigint[], OUT agotada boolean) RETURNS record
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.leidas() RETURNS bigint
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.marcar_en_proceso(lotes bigint[], fichas bigint[]) RETURNS bigint
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.pasar_lista() RETURNS void
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.permitir_mirar(rol text) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.permitir_publicar(rol text) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.permitir_trabajar(rol text) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.posicion(grupo text, carril smallint) RETURNS SETOF cauce.posiciones
    LANGUAGE sql STABLE ROWS 1
    AS (...);

CREATE FUNCTION cauce.presentar_trabajador(trabajador text, grupos text[], maquina text, pid integer, con_cerrojo boolean DEFAULT false) RETURNS void
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.primer_aviso() RETURNS boolean
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.primer_carril(grupo text, carriles smallint[]) RETURNS cauce.posiciones
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.publicar_evento(origen text, tipo text, payload jsonb, clave text DEFAULT NULL::text, prioridad smallint DEFAULT NULL::smallint, id_externo text DEFAULT NULL::text, cabeceras jsonb DEFAULT NULL::jsonb, causa bigint DEFAULT NULL::bigint, correlacion bigint DEFAULT NULL::bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.publicar_eventos(eventos jsonb, causa bigint DEFAULT NULL::bigint, correlacion bigint DEFAULT NULL::bigint) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS (...);

CREATE FUNCTION cauce.purgar(antes interval, maximo integer, OUT borrados bigint, OUT queda boolean) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS (...);

CREATE FUNCTION cauce.purgar_rechazados(antes interval, maximo integer) RETURNS bigint
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.raiz_de(evento bigint) RETURNS bigint
    LANGUAGE sql STABLE
    AS (...);

CREATE FUNCTION cauce.rechazar(origen text, razon text, detalle text, causa text, url text, cabeceras jsonb, tamano integer, cuerpo bytea, maximo_filas integer, maximo_bytes bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.rechazar_evento() RETURNS trigger
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.reciente(ahora pg_snapshot) RETURNS xid8
    LANGUAGE sql IMMUTABLE
    AS (...);

CREATE FUNCTION cauce.reintentar(evento bigint, grupo text DEFAULT NULL::text, suscriptor text DEFAULT NULL::text) RETURNS integer
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.remediar(eventos bigint[], descartar boolean, grupo text DEFAULT NULL::text, suscriptor text DEFAULT NULL::text) RETURNS TABLE(id bigint, entregas integer)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS (...);

CREATE FUNCTION cauce.renovar(lotes bigint[], fichas bigint[], arriendo interval) RETURNS SETOF bigint
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.repasar_reintentos(grupo text, aplicacion text DEFAULT ''::text, alcance interval DEFAULT '00:00:10'::interval) RETURNS bigint
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS (...);

CREATE FUNCTION cauce.rescatar(limite_caidas integer) RETURNS integer
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.rescatar_lote(l cauce.lotes, limite_caidas integer) RETURNS void
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.restaurada() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS (...);

CREATE FUNCTION cauce.retraso(grupo text, maximo integer) RETURNS TABLE(carril smallint, pendientes bigint, desde timestamp with time zone)
    LANGUAGE sql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS (...);

CREATE FUNCTION cauce.siguientes(grupo text, maximo integer) RETURNS bigint[]
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.sin_atender(evento bigint) RETURNS boolean
    LANGUAGE sql STABLE
    AS (...);

CREATE FUNCTION cauce.soltar_borrados(lote bigint) RETURNS boolean
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.sortear(carriles smallint[]) RETURNS smallint[]
    LANGUAGE sql
    AS (...);

CREATE FUNCTION cauce.terminar(lote bigint, ficha bigint, ids bigint[], entregas jsonb DEFAULT NULL::jsonb) RETURNS bigint[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS (...);

CREATE FUNCTION cauce.tocar_timbre() RETURNS boolean
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.tomar(grupo text, maximo integer, trabajador text, arriendo interval, prudente boolean DEFAULT false, aplicacion text DEFAULT ''::text) RETURNS TABLE(lote bigint, ficha bigint, suscriptor text, intento integer, caidas smallint, id bigint, origen text, tipo text, clave text, id_externo text, prioridad smallint, creado_en timestamp with time zone, payload text, cabeceras text, causa bigint, correlacion bigint, version bigint)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS (...);

CREATE FUNCTION cauce.tomar_al_timbre(grupo text, maximo integer, trabajador text, arriendo interval, prudente boolean DEFAULT false, aplicacion text DEFAULT ''::text) RETURNS TABLE(lote bigint, ficha bigint, suscriptor text, intento integer, caidas smallint, id bigint, origen text, tipo text, clave text, id_externo text, prioridad smallint, creado_en timestamp with time zone, payload text, cabeceras text, causa bigint, correlacion bigint, version bigint)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS (...);

CREATE FUNCTION cauce.tomar_reintentos(grupo text, aplicacion text, trabajador text, maximo integer, sospechosas boolean, OUT reintentos bigint[], OUT suscriptores text[]) RETURNS record
    LANGUAGE plpgsql
    AS (...);

CREATE FUNCTION cauce.tomar_turno(grupo text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS (...);

CREATE FUNCTION cauce.turno(grupo text) RETURNS text
    LANGUAGE sql STABLE
    AS (...);

CREATE FUNCTION cauce.xid_visto() RETURNS bigint
    LANGUAGE sql
    AS (...);

CREATE TABLE cauce.catalogo (
    origen cauce.nombre NOT NULL,
    tipo cauce.nombre NOT NULL,
    prioridad cauce.nivel NOT NULL,
    clave text,
    version smallint DEFAULT 1 NOT NULL,
    actualizado_en timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT catalogo_version_check CHECK ((version > 0))
);

CREATE TABLE cauce.causas (
    huella bigint NOT NULL,
    tipo text NOT NULL,
    mensaje text NOT NULL,
    traza text NOT NULL,
    visto_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL
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

CREATE VIEW cauce.en_mano AS
 SELECT l.id AS lote,
    l.grupo,
    u.evento,
    u.suscriptor,
    l.trabajador,
    l.tomado_en,
    l.arriendo_hasta
   FROM (cauce.lotes l
     CROSS JOIN LATERAL UNNEST(l.reintentos, l.suscriptores) u(evento, suscriptor));

CREATE TABLE cauce.entregas (
    evento bigint NOT NULL,
    grupo text NOT NULL,
    suscriptor text NOT NULL,
    aplicacion text DEFAULT ''::text NOT NULL,
    prioridad smallint NOT NULL,
    estado cauce.estado DEFAULT 'pendiente'::cauce.estado NOT NULL,
    intentos integer NOT NULL,
    caidas smallint DEFAULT 0 NOT NULL,
    proximo_en timestamp with time zone NOT NULL,
    error text,
    creado_en timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT entregas_caidas_check CHECK ((caidas >= 0)),
    CONSTRAINT entregas_estado_check CHECK ((estado = ANY (ARRAY['pendiente'::cauce.estado, 'error'::cauce.estado]))),
    CONSTRAINT entregas_intentos_check CHECK ((intentos >= 0))
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
    causa bigint,
    correlacion bigint
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
    huella bigint,
    trabajador text,
    descartada boolean DEFAULT false NOT NULL,
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
    version bigint DEFAULT 1 NOT NULL,
    creado_en timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE cauce.instancia (
    unica boolean DEFAULT true NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT instancia_unica_check CHECK (unica)
);

CREATE SEQUENCE cauce.lotes_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE cauce.marcas (
    grupo text NOT NULL,
    aplicacion text NOT NULL,
    sospechosas boolean NOT NULL,
    prioridad smallint NOT NULL,
    n bigint NOT NULL,
    proximo_en timestamp with time zone NOT NULL,
    evento bigint NOT NULL,
    suscriptor text NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

CREATE TABLE cauce.migraciones (
    numero integer NOT NULL,
    nombre text NOT NULL,
    aplicada_en timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE cauce.poda (
    unica boolean DEFAULT true NOT NULL,
    hasta bigint DEFAULT 0 NOT NULL,
    CONSTRAINT poda_unica_check CHECK (unica)
);

CREATE TABLE cauce.trabajadores (
    trabajador text NOT NULL,
    grupos text[] NOT NULL,
    maquina text NOT NULL,
    pid integer NOT NULL,
    iniciado_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    visto_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    perdido_en timestamp with time zone
)
WITH (fillfactor='70');

CREATE VIEW cauce.presencia AS
 SELECT t.trabajador,
    t.grupos,
    t.maquina,
    t.pid,
    t.iniciado_en,
    (c.pid IS NOT NULL) AS con_cerrojo,
    t.perdido_en,
        CASE
            WHEN (c.pid IS NOT NULL) THEN GREATEST(t.visto_en, COALESCE(a.state_change, clock_timestamp()))
            ELSE COALESCE(t.perdido_en, t.visto_en)
        END AS visto_en
   FROM ((cauce.trabajadores t
     LEFT JOIN pg_locks c ON (((c.locktype = 'advisory'::text) AND c.granted AND (c.objsubid = 2) AND (c.database = ( SELECT d.oid
           FROM pg_database d
          WHERE (d.datname = current_database()))) AND (c.classid = (1128355144)::oid) AND (c.objid = (hashtext(t.trabajador))::oid))))
     LEFT JOIN pg_stat_activity a ON ((a.pid = c.pid)));

CREATE TABLE cauce.rechazados (
    id bigint NOT NULL,
    origen cauce.nombre NOT NULL,
    recibido_en timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    razon cauce.nombre NOT NULL,
    detalle text NOT NULL,
    causa text,
    url text NOT NULL,
    cabeceras jsonb NOT NULL,
    tamano integer NOT NULL,
    cuerpo bytea,
    peso integer GENERATED ALWAYS AS (((((octet_length(detalle) + COALESCE(octet_length(causa), 0)) + octet_length(url)) + octet_length((cabeceras)::text)) + COALESCE(octet_length(cuerpo), 0))) STORED NOT NULL,
    CONSTRAINT rechazados_entero CHECK ((octet_length(cuerpo) = tamano))
);

ALTER TABLE cauce.rechazados ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cauce.rechazados_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE cauce.suscripciones (
    grupo cauce.nombre NOT NULL,
    suscriptor cauce.nombre NOT NULL,
    origen cauce.nombre NOT NULL,
    tipo cauce.nombre NOT NULL,
    aplicacion character varying(255) DEFAULT ''::character varying NOT NULL,
    retirada_en timestamp with time zone
);

CREATE VIEW cauce.turno_principal AS
 SELECT;

ALTER TABLE ONLY cauce.catalogo
    ADD CONSTRAINT catalogo_pkey PRIMARY KEY (origen, tipo);

ALTER TABLE ONLY cauce.causas
    ADD CONSTRAINT causas_pkey PRIMARY KEY (huella);

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

ALTER TABLE ONLY cauce.marcas
    ADD CONSTRAINT marcas_pkey PRIMARY KEY (grupo, aplicacion, sospechosas, prioridad, n);

ALTER TABLE ONLY cauce.migraciones
    ADD CONSTRAINT migraciones_pkey PRIMARY KEY (numero);

ALTER TABLE ONLY cauce.poda
    ADD CONSTRAINT poda_pkey PRIMARY KEY (unica);

ALTER TABLE ONLY cauce.posiciones
    ADD CONSTRAINT posiciones_pkey PRIMARY KEY (grupo, carril, n);

ALTER TABLE ONLY cauce.rechazados
    ADD CONSTRAINT rechazados_pkey PRIMARY KEY (id);

ALTER TABLE ONLY cauce.suscripciones
    ADD CONSTRAINT suscripciones_pkey PRIMARY KEY (grupo, origen, tipo, suscriptor);

ALTER TABLE ONLY cauce.trabajadores
    ADD CONSTRAINT trabajadores_pkey PRIMARY KEY (trabajador);

CREATE INDEX entregas_debidas ON cauce.entregas USING btree (grupo, aplicacion, ((caidas > 0)), prioridad, proximo_en, evento, suscriptor) WHERE (estado = 'pendiente'::cauce.estado);

CREATE INDEX entregas_muertas ON cauce.entregas USING btree (grupo, evento) WHERE (estado = 'error'::cauce.estado);

CREATE INDEX eventos_familia ON cauce.eventos USING btree (correlacion, id) WHERE (correlacion IS NOT NULL);

CREATE UNIQUE INDEX eventos_id_externo_unico ON cauce.eventos USING btree (origen, id_externo) WHERE (id_externo IS NOT NULL);

CREATE INDEX eventos_log ON cauce.eventos USING btree (carril, orden, id) INCLUDE (tx);

CREATE INDEX fallos_evento ON cauce.fallos USING btree (evento, id);

CREATE INDEX fallos_huella ON cauce.fallos USING btree (huella) WHERE (huella IS NOT NULL);

CREATE INDEX lotes_sospechosos ON cauce.lotes USING btree (trabajador) WHERE sospechosa;

CREATE INDEX rechazados_cubo ON cauce.rechazados USING btree (origen, razon, id) INCLUDE (peso);

CREATE INDEX rechazados_edad ON cauce.rechazados USING btree (recibido_en);

CREATE TRIGGER eventos_coherente AFTER UPDATE ON cauce.eventos FOR EACH ROW WHEN (((NOT cauce.es_coherente(new.estado, new.procesado_en, new.payload, new.cuerpo)) AND cauce.es_coherente(old.estado, old.procesado_en, old.payload, old.cuerpo))) EXECUTE FUNCTION cauce.rechazar_evento();

CREATE TRIGGER eventos_completar BEFORE INSERT ON cauce.eventos FOR EACH ROW WHEN (((new.carril IS NULL) OR (new.payload IS NULL))) EXECUTE FUNCTION cauce.completar_evento();

REVOKE ALL ON FUNCTION cauce.crear_grupo(grupo text, desde_el_principio boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION cauce.publicar_eventos(eventos jsonb, causa bigint, correlacion bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION cauce.tomar_turno(grupo text) FROM PUBLIC;
