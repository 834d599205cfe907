-- The audit log: one row per write through the admin API, each chained to the one before by a hash.
--
-- The chain belongs to the installation and is in commit order: a writer holds the one row of audit_head from its
-- first entry until it commits. The database itself numbers, dates and hashes; nobody has UPDATE or DELETE, and a
-- trigger refuses both to everybody else. What a superuser changes nevertheless, `nemo audit verify` finds: a changed
-- row by its hash, a missing or moved one by its number, a missing end by audit_head.
SET LOCAL ROLE nemo_owner;

CREATE TABLE audit_log (
    -- Without gaps, from 1.
    seq bigint PRIMARY KEY,
    -- NULL: the installation's. No foreign key: entries outlive their organization.
    org_id uuid,
    at timestamptz NOT NULL,
    -- local, admin_token, person.
    actor_kind text NOT NULL,
    -- Id of the token, subject of the person; empty for local.
    actor_id text NOT NULL,
    actor_name text NOT NULL,
    -- Empty: a caller in the control plane's own process.
    remote_addr text NOT NULL,
    -- Such as team.update.
    action text NOT NULL,
    target_kind text NOT NULL,
    target_id text NOT NULL,
    -- Canonical JSON without secrets, as text: what was hashed must stay what it is to the byte. NULL before a create
    -- and after a delete.
    before text,
    after text,
    prev_hash bytea NOT NULL,
    hash bytea NOT NULL
);
CREATE INDEX audit_log_by_org ON audit_log (org_id, seq DESC);
CREATE INDEX audit_log_by_target ON audit_log (target_id, seq DESC);
CREATE INDEX audit_log_by_actor ON audit_log (actor_id, seq DESC);
SELECT nemo_protect('audit_log');
GRANT SELECT, INSERT ON audit_log TO nemo_app, nemo_system;

-- The last entry: without it a missing end could not be told from an end.
CREATE TABLE audit_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));
GRANT SELECT ON audit_head TO nemo_system;

-- One field of what is hashed: its length in eight bytes, then itself. NULL has a length that nothing else has.
CREATE FUNCTION nemo_audit_field(value bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN value IS NULL THEN '\xffffffffffffffff'::bytea ELSE int8send(octet_length(value)) || value END $$;

-- SHA-256 over all fields in the order of the columns. The same again in Rust: control-plane/src/store/audit.rs.
CREATE FUNCTION nemo_audit_hash(entry audit_log) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(
        nemo_audit_field('nemo-audit-v1'::bytea)
        || nemo_audit_field(entry.prev_hash)
        || nemo_audit_field(int8send(entry.seq))
        || nemo_audit_field(uuid_send(entry.org_id))
        -- Microseconds since 1970.
        || nemo_audit_field(int8send((extract(epoch FROM entry.at) * 1000000)::bigint))
        || nemo_audit_field(convert_to(entry.actor_kind, 'UTF8'))
        || nemo_audit_field(convert_to(entry.actor_id, 'UTF8'))
        || nemo_audit_field(convert_to(entry.actor_name, 'UTF8'))
        || nemo_audit_field(convert_to(entry.remote_addr, 'UTF8'))
        || nemo_audit_field(convert_to(entry.action, 'UTF8'))
        || nemo_audit_field(convert_to(entry.target_kind, 'UTF8'))
        || nemo_audit_field(convert_to(entry.target_id, 'UTF8'))
        || nemo_audit_field(convert_to(entry.before, 'UTF8'))
        || nemo_audit_field(convert_to(entry.after, 'UTF8')))
$$;

-- SECURITY DEFINER: the roles that insert see neither the head nor entries of others.
CREATE FUNCTION nemo_audit_chain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    head audit_head;
BEGIN
    SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
    NEW.seq := head.seq + 1;
    NEW.at := clock_timestamp();
    NEW.prev_hash := head.hash;
    NEW.hash := nemo_audit_hash(NEW);
    UPDATE audit_head SET seq = NEW.seq, hash = NEW.hash;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION nemo_audit_chain() FROM PUBLIC;
CREATE TRIGGER audit_chain BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION nemo_audit_chain();

CREATE FUNCTION nemo_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION nemo_audit_refuse();

-- The newest revision of the configuration as the transaction that asks will leave it. Writers hold the lock on it, so
-- for them it is the revision of their own write.
CREATE FUNCTION nemo_written_revision() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS
    $$ SELECT revision FROM config_revision $$;
REVOKE ALL ON FUNCTION nemo_written_revision() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nemo_written_revision() TO nemo_app, nemo_system;

-- An admin token can be renamed; nothing else about it changes.
GRANT UPDATE (name) ON admin_tokens TO nemo_app, nemo_system;

RESET ROLE;
