-- The request log: one row per usage event, partitioned by the UTC day of the request id. Append-only: nobody has
-- UPDATE or DELETE. No prompt and no completion text, ever.
SET LOCAL ROLE nemo_owner;

CREATE TABLE request_log (
    -- Day (UTC) of the UUIDv7 request_id, so that an event that is sent twice meets its own row.
    event_day date NOT NULL,
    request_id uuid NOT NULL,
    org_id uuid NOT NULL,
    team_id uuid NOT NULL,
    key_id uuid NOT NULL,
    -- NULL: no deployment was chosen.
    deployment_id uuid,
    started_at timestamptz NOT NULL,
    endpoint text NOT NULL,
    requested_model text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    upstream_model text NOT NULL,
    stream boolean NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('ok', 'error', 'cancelled', 'interrupted')),
    http_status int NOT NULL,
    error_code text NOT NULL,
    finish_reason text NOT NULL,
    -- Token counts: NULL is unknown, which is not zero.
    input_tokens bigint,
    output_tokens bigint,
    cache_read_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    audio_input_tokens bigint,
    audio_output_tokens bigint,
    usage_estimated boolean NOT NULL,
    -- Nano-USD; NULL is unknown.
    cost_nanos bigint,
    -- Empty when the cost is unknown.
    cost_source text NOT NULL CHECK (cost_source IN ('', 'provider', 'priced', 'estimated')),
    price_id text NOT NULL,
    attempts int NOT NULL,
    strategy text NOT NULL,
    config_revision bigint NOT NULL,
    -- Durations in microseconds.
    total_us bigint NOT NULL,
    upstream_us bigint NOT NULL,
    first_byte_us bigint,
    overhead_us bigint NOT NULL,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    client_request_id text NOT NULL,
    -- JSON object as the client gave it; text, because jsonb refuses \u0000 and a row must never be refused for it.
    metadata text NOT NULL,
    node_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_day, request_id)
) PARTITION BY RANGE (event_day);
CREATE INDEX request_log_by_org ON request_log (org_id, started_at DESC, request_id DESC);
CREATE INDEX request_log_by_key ON request_log (org_id, key_id, started_at DESC, request_id DESC);
SELECT nemo_protect('request_log');
GRANT SELECT ON request_log TO nemo_app;
GRANT SELECT, INSERT ON request_log TO nemo_system;

-- Takes what has no day of its own, so that no event is ever refused for its date.
CREATE TABLE request_log_default PARTITION OF request_log DEFAULT;
SELECT nemo_protect('request_log_default');

-- Makes the partition of a day unless it exists; called before rows of that day are inserted, in the same transaction
-- or another. Days far from today are left to the default partition: a clock gone wild must not make a thousand
-- tables. Partitions carry row-level security but no grants: they are reached through the parent only.
CREATE FUNCTION nemo_ensure_request_log_day(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    part text := 'request_log_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF day < today - 31 OR day > today + 2 OR to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('nemo.request_log.partition', 0));
    -- A query, not to_regclass: its cache may not know yet what was committed while we waited.
    IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = 'public'::regnamespace) THEN
        RETURN;
    END IF;
    -- ATTACH locks the parent less than CREATE TABLE .. PARTITION OF would: inserts of other days go on.
    EXECUTE format('CREATE TABLE %I (LIKE request_log INCLUDING ALL)', part);
    PERFORM nemo_protect(part::regclass);
    EXECUTE format('ALTER TABLE request_log ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, day, day + 1);
EXCEPTION
    WHEN check_violation THEN
        NULL; -- the default partition has rows of that day already: it keeps the day
END $$;
REVOKE ALL ON FUNCTION nemo_ensure_request_log_day(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nemo_ensure_request_log_day(date) TO nemo_system;

RESET ROLE;
