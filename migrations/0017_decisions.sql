-- Why each request went where it went, and the configuration that routing read at each revision, so that a decision can
-- be made again from what is stored.
SET LOCAL ROLE nemo_owner;

-- nemo.usage.v1.Decision as the node encoded it; NULL: refused before it was routed, or of an older node.
ALTER TABLE request_log ADD COLUMN decision bytea;

-- What routing reads, by revision; append-only. A row says how a resource was from its revision on; NULL: gone. Written
-- by whichever replica publishes the revision, before any node can have it. No credentials, no keys.
--
-- A revision is rebuilt from the newest base at or below it: of every resource the newest row between the two. Replicas
-- skip different revisions when changes come fast; each writes all that changed since the one that it published before,
-- so the rows of one never contradict those of another.
CREATE TABLE config_history (
    -- Number of nemo.config.v1.Kind.
    kind smallint NOT NULL,
    -- 16 UUID bytes, for a model its id in UTF-8.
    id bytea NOT NULL,
    revision bigint NOT NULL,
    -- nemo.config.v1.Resource.
    resource bytea,
    PRIMARY KEY (kind, id, revision)
);
GRANT SELECT, INSERT ON config_history TO nemo_system;

-- Revisions that can be rebuilt.
CREATE TABLE config_history_revisions (
    revision bigint PRIMARY KEY,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX config_history_revisions_by_time ON config_history_revisions (recorded_at);
GRANT SELECT, INSERT ON config_history_revisions TO nemo_system;

-- Revisions of which config_history has every resource.
CREATE TABLE config_history_bases (revision bigint PRIMARY KEY);
GRANT SELECT, INSERT ON config_history_bases TO nemo_system;

-- Forgets what no revision recorded at `before` or later needs: the newest one before that becomes the base. Returns how
-- many revisions are gone.
CREATE FUNCTION nemo_prune_config_history(before timestamptz) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    keep bigint;
    base bigint;
    gone bigint;
BEGIN
    IF before > now() THEN
        RAISE EXCEPTION 'pruning to % would remove what is in force', before
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Revisions are recorded almost in their order; one that came late is no reason to lose those before it.
    SELECT min(revision) INTO keep FROM config_history_revisions WHERE recorded_at >= before;
    SELECT max(revision) INTO keep FROM config_history_revisions
        WHERE keep IS NULL OR revision < keep;
    SELECT max(revision) INTO base FROM config_history_bases WHERE revision <= keep;
    IF keep IS NULL OR base IS NULL OR NOT EXISTS (SELECT FROM config_history_revisions WHERE revision < keep) THEN
        RETURN 0;
    END IF;
    INSERT INTO config_history (kind, id, revision, resource)
        SELECT kind, id, keep, resource FROM (
            SELECT DISTINCT ON (kind, id) kind, id, resource FROM config_history
                WHERE revision BETWEEN base AND keep ORDER BY kind, id, revision DESC
        ) AS newest WHERE resource IS NOT NULL
        ON CONFLICT DO NOTHING;
    INSERT INTO config_history_bases VALUES (keep) ON CONFLICT DO NOTHING;
    DELETE FROM config_history WHERE revision < keep;
    DELETE FROM config_history_bases WHERE revision < keep;
    DELETE FROM config_history_revisions WHERE revision < keep;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
REVOKE ALL ON FUNCTION nemo_prune_config_history(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nemo_prune_config_history(timestamptz) TO nemo_system;

RESET ROLE;
