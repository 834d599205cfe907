-- Usage rollups, indexes for searching the request log, and retention by dropping partitions.
--
-- Rollups are sums per hour and per day (UTC). The usage ingest adds to them in the transaction that inserts the rows
-- of the request log, and only for rows that were really inserted, so they always equal the log and never count twice.
SET LOCAL ROLE nemo_owner;

-- Sum that stops at the largest value instead of failing: one absurd number must not refuse all that follow.
CREATE FUNCTION nemo_add(a bigint, b bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT least(a::numeric + b, 9223372036854775807)::bigint $$;

-- A sum as it is stored: none is zero.
CREATE FUNCTION nemo_total(total numeric) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT least(coalesce(total, 0), 9223372036854775807)::bigint $$;

CREATE TABLE usage_hourly (
    org_id uuid NOT NULL,
    -- Begin of the hour (UTC) in which the requests started.
    bucket timestamptz NOT NULL,
    team_id uuid NOT NULL,
    key_id uuid NOT NULL,
    -- As resolved; what clients send is not here, it has no bound.
    model text NOT NULL,
    provider text NOT NULL,
    endpoint text NOT NULL,
    requests bigint NOT NULL,
    errors bigint NOT NULL,
    cancelled bigint NOT NULL,
    interrupted bigint NOT NULL,
    streams bigint NOT NULL,
    estimated bigint NOT NULL,
    -- Served, but of unknown cost.
    unpriced bigint NOT NULL,
    -- Sums over the requests that know theirs.
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    audio_input_tokens bigint NOT NULL,
    audio_output_tokens bigint NOT NULL,
    cost_nanos bigint NOT NULL,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    total_us bigint NOT NULL,
    first_byte_us bigint NOT NULL,
    -- Requests per latency bucket; the bounds are in the code and never change.
    total_histogram int[] NOT NULL,
    first_byte_histogram int[] NOT NULL,
    PRIMARY KEY (org_id, bucket, key_id, team_id, model, provider, endpoint)
) PARTITION BY RANGE (bucket);
-- Always with a long header: then each of the many looks at an element needs no copy of the array.
ALTER TABLE usage_hourly ALTER total_histogram SET STORAGE PLAIN, ALTER first_byte_histogram SET STORAGE PLAIN;
SELECT nemo_protect('usage_hourly');
GRANT SELECT ON usage_hourly TO nemo_app;
GRANT SELECT, INSERT, UPDATE ON usage_hourly TO nemo_system;
CREATE TABLE usage_hourly_default PARTITION OF usage_hourly DEFAULT;
SELECT nemo_protect('usage_hourly_default');

-- The same per day; months are summed from days.
CREATE TABLE usage_daily (LIKE usage_hourly INCLUDING ALL) PARTITION BY RANGE (bucket);
SELECT nemo_protect('usage_daily');
GRANT SELECT ON usage_daily TO nemo_app;
GRANT SELECT, INSERT, UPDATE ON usage_daily TO nemo_system;
CREATE TABLE usage_daily_default PARTITION OF usage_daily DEFAULT;
SELECT nemo_protect('usage_daily_default');

-- From where on each of them is kept. Set by retention, in the transaction that drops what is older; the ingest looks
-- at it in the statement that inserts, so an event of a day that was dropped can't come back and be counted twice.
CREATE TABLE usage_retention (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    request_log_from date NOT NULL DEFAULT '1970-01-01',
    hourly_from date NOT NULL DEFAULT '1970-01-01',
    daily_from date NOT NULL DEFAULT '1970-01-01'
);
INSERT INTO usage_retention DEFAULT VALUES;
GRANT SELECT ON usage_retention TO nemo_app, nemo_system;

-- Searching. Time and key have their indexes since 0007.
CREATE INDEX request_log_by_model ON request_log (org_id, model, started_at DESC, request_id DESC);
CREATE INDEX request_log_by_requested_model ON request_log (org_id, requested_model, started_at DESC, request_id DESC)
    WHERE requested_model <> model;
CREATE INDEX request_log_by_client_request_id
    ON request_log (org_id, client_request_id, started_at DESC, request_id DESC) WHERE client_request_id <> '';
-- What did not go well is rare and looked for often: by status, class, outcome and error code.
CREATE INDEX request_log_troubled ON request_log (org_id, started_at DESC, request_id DESC)
    WHERE http_status >= 400 OR outcome <> 'ok';

-- Makes a partition unless there is one. Rows that came before it stay in the default partition, with all others of
-- that time.
CREATE FUNCTION nemo_ensure_partition(parent text, part text, from_value text, to_value text, options text)
    RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('nemo.request_log.partition', 0));
    -- A query, not to_regclass: its cache may not know yet what was committed while we waited.
    IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = 'public'::regnamespace) THEN
        RETURN;
    END IF;
    -- ATTACH locks the parent less than CREATE TABLE .. PARTITION OF would: inserts elsewhere go on.
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) %s', part, parent, options);
    PERFORM nemo_protect(part::regclass);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, part, from_value, to_value);
EXCEPTION
    WHEN check_violation THEN
        NULL; -- the default partition has rows of that time already: it keeps it
END $$;
REVOKE ALL ON FUNCTION nemo_ensure_partition(text, text, text, text, text) FROM PUBLIC;

-- As in 0007, and also: the months of the rollups, a week ahead, and never again what retention has removed.
CREATE OR REPLACE FUNCTION nemo_ensure_request_log_day(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    month timestamp;
    parent text;
BEGIN
    IF day < today - 31 OR day > today + 8 OR day < (SELECT request_log_from FROM usage_retention) THEN
        RETURN;
    END IF;
    PERFORM nemo_ensure_partition('request_log', 'request_log_' || to_char(day, 'YYYYMMDD'),
        to_char(day, 'YYYY-MM-DD'), to_char(day + 1, 'YYYY-MM-DD'), '');
    -- A request starts within a day of its id, by which day its row is filed.
    FOR month IN SELECT DISTINCT date_trunc('month', near::timestamp) FROM unnest(ARRAY[day - 1, day, day + 1]) near
    LOOP
        FOREACH parent IN ARRAY ARRAY['usage_hourly', 'usage_daily'] LOOP
            -- Rows are updated in place as long as their page has room.
            PERFORM nemo_ensure_partition(parent, parent || to_char(month, '_YYYYMM'),
                to_char(month, 'YYYY-MM-DD 00:00:00+00'), to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'),
                'WITH (fillfactor = 60)');
        END LOOP;
    END LOOP;
END $$;

-- Retention is the only one to remove rows of the default partitions, through the function below.
CREATE POLICY retention ON request_log_default TO nemo_owner USING (true);
CREATE POLICY retention ON usage_hourly_default TO nemo_owner USING (true);
CREATE POLICY retention ON usage_daily_default TO nemo_owner USING (true);

-- Drops the oldest partition of a parent that ends at or before `before` (UTC), and tells its name; NULL when there is
-- none left. Rows in the default partition go with the last call. The caller sets lock_timeout: dropping waits for
-- every transaction that reads or writes the parent, and everybody else waits for it meanwhile.
CREATE FUNCTION nemo_drop_expired(parent text, before date) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    span text := CASE WHEN parent = 'request_log' THEN '1 day' ELSE '1 month' END;
    pattern text := CASE WHEN parent = 'request_log' THEN 'YYYYMMDD' ELSE 'YYYYMM' END;
    part text;
BEGIN
    IF parent NOT IN ('request_log', 'usage_hourly', 'usage_daily') THEN
        RAISE EXCEPTION 'nothing of % expires', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF before > (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION 'retention to % would remove what is written now', before
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT c.relname INTO part FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = parent::regclass AND c.relname ~ ('^' || parent || '_[0-9]+$')
            AND to_date(substr(c.relname, length(parent) + 2), pattern) + span::interval <= before
        ORDER BY c.relname LIMIT 1;
    IF part IS NOT NULL THEN
        EXECUTE format('DROP TABLE %I', part);
    ELSIF parent = 'request_log' THEN
        DELETE FROM request_log_default WHERE event_day < before;
    ELSIF parent = 'usage_hourly' THEN
        DELETE FROM usage_hourly_default WHERE bucket < before::timestamp AT TIME ZONE 'UTC';
    ELSE
        DELETE FROM usage_daily_default WHERE bucket < before::timestamp AT TIME ZONE 'UTC';
    END IF;
    UPDATE usage_retention SET
        request_log_from = CASE parent WHEN 'request_log' THEN greatest(request_log_from, before) ELSE request_log_from END,
        hourly_from = CASE parent WHEN 'usage_hourly' THEN greatest(hourly_from, before) ELSE hourly_from END,
        daily_from = CASE parent WHEN 'usage_daily' THEN greatest(daily_from, before) ELSE daily_from END
    WHERE (parent = 'request_log' AND request_log_from < before)
        OR (parent = 'usage_hourly' AND hourly_from < before)
        OR (parent = 'usage_daily' AND daily_from < before);
    RETURN part;
END $$;
REVOKE ALL ON FUNCTION nemo_drop_expired(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nemo_drop_expired(text, date) TO nemo_system;

-- Requests per latency bucket, as the ingest counts them: a bucket ends with its bound, so the next begins one above it.
CREATE FUNCTION nemo_histogram(micros bigint[]) RETURNS int[] LANGUAGE sql IMMUTABLE AS $$
    WITH begins AS (
        SELECT array_agg(((ARRAY[1000000, 1189207, 1414214, 1681793]::bigint[])[at % 4 + 1] << (at / 4)) / 1000 + 1
            ORDER BY at) AS begins
        FROM generate_series(0, 80) at)
    SELECT array_agg(requests ORDER BY bucket) FROM (
        SELECT bucket, count(value)::int AS requests
        FROM generate_series(0, 81) bucket CROSS JOIN begins
            LEFT JOIN unnest(micros) value ON width_bucket(value, begins) = bucket
        GROUP BY bucket) AS counts
$$;

-- Sums up a log that was written before there were rollups. With an ingest under way at the same time it would count
-- twice; the migration below holds everybody off.
CREATE FUNCTION nemo_sum_up_request_log() RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    unit text;
BEGIN
    FOREACH unit IN ARRAY ARRAY['hour', 'day'] LOOP
        EXECUTE format($sql$
            INSERT INTO %I SELECT
                org_id, date_trunc(%L, started_at, 'UTC') AS bucket, team_id, key_id, model, provider, endpoint,
                count(*), count(*) FILTER (WHERE outcome = 'error'), count(*) FILTER (WHERE outcome = 'cancelled'),
                count(*) FILTER (WHERE outcome = 'interrupted'), count(*) FILTER (WHERE stream),
                count(*) FILTER (WHERE usage_estimated),
                count(*) FILTER (WHERE cost_nanos IS NULL
                    AND (outcome = 'ok' OR input_tokens IS NOT NULL OR output_tokens IS NOT NULL)),
                nemo_total(sum(input_tokens)), nemo_total(sum(output_tokens)), nemo_total(sum(cache_read_tokens)),
                nemo_total(sum(cache_write_tokens)), nemo_total(sum(reasoning_tokens)),
                nemo_total(sum(audio_input_tokens)), nemo_total(sum(audio_output_tokens)), nemo_total(sum(cost_nanos)),
                nemo_total(sum(request_bytes)), nemo_total(sum(response_bytes)), nemo_total(sum(total_us)),
                nemo_total(sum(first_byte_us)), nemo_histogram(array_agg(total_us)),
                nemo_histogram(array_agg(first_byte_us) FILTER (WHERE first_byte_us IS NOT NULL))
            FROM request_log GROUP BY org_id, bucket, team_id, key_id, model, provider, endpoint
        $sql$, CASE unit WHEN 'hour' THEN 'usage_hourly' ELSE 'usage_daily' END, unit);
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION nemo_sum_up_request_log() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nemo_sum_up_request_log() TO nemo_system;

-- Replicas of the release before don't sum up. What they ingest after this, in an upgrade without a pause, is in the
-- log only.
LOCK TABLE request_log IN SHARE ROW EXCLUSIVE MODE;
SET LOCAL ROLE nemo_system;
DO $$
DECLARE
    days date[] := ARRAY(SELECT DISTINCT event_day FROM request_log);
    one date;
BEGIN
    FOREACH one IN ARRAY days LOOP
        PERFORM nemo_ensure_request_log_day(one);
    END LOOP;
    PERFORM nemo_sum_up_request_log();
END $$;

RESET ROLE;
