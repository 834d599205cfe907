-- Secrets that a rotation takes out of use are told at the commit, and what the list of nodes shows of the whole fleet.
SET LOCAL ROLE nemo_owner;

-- Tells every replica of the control plane, on the lane of revocations (0012), that a key's secret must not be accepted
-- any more: '<revision> secret <public id> <hash>'. One that stays valid for an overlap is not told: its end is known to
-- the nodes.
CREATE FUNCTION nemo_notify_withdrawn_secret() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    current_revision bigint;
    hash bytea;
BEGIN
    SELECT revision INTO current_revision FROM config_revision;
    FOREACH hash IN ARRAY array_remove(ARRAY[OLD.secret_hash, OLD.previous_secret_hash], NULL) LOOP
        IF hash IS DISTINCT FROM NEW.secret_hash AND hash IS DISTINCT FROM NEW.previous_secret_hash THEN
            PERFORM pg_notify('nemo_revoked',
                format('%s secret %s %s', current_revision, NEW.public_id, encode(hash, 'hex')));
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION nemo_notify_withdrawn_secret() FROM PUBLIC;

CREATE TRIGGER revocation_on_rotate AFTER UPDATE ON api_keys FOR EACH ROW
    WHEN (NEW.secret_hash IS DISTINCT FROM OLD.secret_hash
        OR NEW.previous_secret_hash IS DISTINCT FROM OLD.previous_secret_hash)
    EXECUTE FUNCTION nemo_notify_withdrawn_secret();

-- What a replica knows of its nodes, so that each can list those of all.
ALTER TABLE fleet_nodes
    ADD COLUMN version text NOT NULL DEFAULT '',
    ADD COLUMN zone text NOT NULL DEFAULT '',
    ADD COLUMN connected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it was last heard of.
    ADD COLUMN seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN apply_micros bigint NOT NULL DEFAULT 0,
    ADD COLUMN usage_dropped_total bigint NOT NULL DEFAULT 0;

RESET ROLE;
