-- The change feed: a totally ordered revision per transaction that touched configuration, and what it touched.
--
-- Writers take the one row of config_revision before they touch anything else (statement trigger), so configuration
-- writes serialise, can't deadlock with each other, and revision order is commit order: whoever has seen revision n
-- will never see a revision below n appear later. A sequence would not give that.
SET LOCAL ROLE nemo_owner;

CREATE TABLE config_revision (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint NOT NULL DEFAULT 0,
    -- Transaction that made the current revision: its further changes belong to the same revision.
    made_by xid8
);
INSERT INTO config_revision DEFAULT VALUES;
GRANT SELECT ON config_revision TO nemo_system;

-- kind: number of nemo.config.v1.Kind. id: 16 UUID bytes, for a model its id in UTF-8. One row per resource and
-- revision. The newest 10000 revisions are kept: who is further behind reads everything again.
CREATE TABLE config_changes (
    revision bigint NOT NULL,
    kind smallint NOT NULL,
    id bytea NOT NULL,
    op text NOT NULL CHECK (op IN ('upsert', 'delete')),
    PRIMARY KEY (revision, kind, id)
);
GRANT SELECT ON config_changes TO nemo_system;

CREATE FUNCTION nemo_lock_config() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM config_revision FOR NO KEY UPDATE;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION nemo_lock_config() FROM PUBLIC;

-- The same by hand, for a transaction that reads before it writes and must not decide on stale rows.
CREATE FUNCTION nemo_serialize_config() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS
    $$ SELECT 1 FROM config_revision FOR NO KEY UPDATE $$;
REVOKE ALL ON FUNCTION nemo_serialize_config() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nemo_serialize_config() TO nemo_app, nemo_system;

-- Arguments: kind, column with the resource's id, 'own' (the row is the resource) or 'part' (it belongs to one).
CREATE FUNCTION nemo_record_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    resource_kind smallint := TG_ARGV[0];
    id_text text;
    id_bytes bytea;
    current_revision bigint;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD IS NOT DISTINCT FROM NEW THEN
        RETURN NULL; -- nothing changed, nothing to publish
    END IF;
    id_text := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END ->> TG_ARGV[1];
    id_bytes := CASE WHEN resource_kind = 6 THEN convert_to(id_text, 'UTF8') ELSE uuid_send(id_text::uuid) END;

    UPDATE config_revision SET revision = revision + 1, made_by = pg_current_xact_id()
        WHERE made_by IS DISTINCT FROM pg_current_xact_id()
        RETURNING revision INTO current_revision;
    IF FOUND THEN
        DELETE FROM config_changes WHERE revision <= current_revision - 10000;
        PERFORM pg_notify('nemo_config', current_revision::text);
    ELSE
        SELECT revision INTO current_revision FROM config_revision;
    END IF;

    IF TG_ARGV[2] = 'own' THEN
        INSERT INTO config_changes (revision, kind, id, op)
            VALUES (current_revision, resource_kind, id_bytes, CASE TG_OP WHEN 'DELETE' THEN 'delete' ELSE 'upsert' END)
            ON CONFLICT (revision, kind, id) DO UPDATE SET op = EXCLUDED.op;
    ELSE
        -- A part that goes together with its resource must not turn the deletion into an upsert.
        INSERT INTO config_changes (revision, kind, id, op)
            VALUES (current_revision, resource_kind, id_bytes, 'upsert')
            ON CONFLICT (revision, kind, id) DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION nemo_record_change() FROM PUBLIC;

-- Makes the rows of a table part of the change feed.
CREATE FUNCTION nemo_publish(target regclass, kind int, id_column text, role text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER config_lock BEFORE INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION nemo_lock_config()', target);
    EXECUTE format('CREATE TRIGGER config_change AFTER INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH ROW EXECUTE FUNCTION nemo_record_change(%L, %L, %L)', target, kind, id_column, role);
END $$;
REVOKE ALL ON FUNCTION nemo_publish(regclass, int, text, text) FROM PUBLIC;

SELECT nemo_publish('organizations', 1, 'id', 'own');
SELECT nemo_publish('teams', 2, 'id', 'own');
SELECT nemo_publish('api_keys', 3, 'id', 'own');
SELECT nemo_publish('credentials', 4, 'id', 'own');
SELECT nemo_publish('deployments', 5, 'id', 'own');
SELECT nemo_publish('models', 6, 'id', 'own');
SELECT nemo_publish('model_offerings', 6, 'model_id', 'part');
SELECT nemo_publish('model_groups', 7, 'id', 'own');
SELECT nemo_publish('group_links', 7, 'group_id', 'part');
SELECT nemo_publish('link_deployments', 7, 'group_id', 'part');
SELECT nemo_publish('settings', 8, 'id', 'own');

RESET ROLE;
