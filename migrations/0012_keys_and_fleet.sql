-- What keys are limited to; revocations that are told at the commit; and the leases of the nodes.
SET LOCAL ROLE nemo_owner;

ALTER TABLE api_keys
    -- Labels of endpoints, as in 'chat.completions'. Empty: all.
    ADD COLUMN allowed_endpoints text[] NOT NULL DEFAULT '{}',
    -- Networks that requests may come from. Empty: everywhere.
    ADD COLUMN allowed_cidrs text[] NOT NULL DEFAULT '{}',
    -- Capability tags of requests that name none.
    ADD COLUMN default_tags text[] NOT NULL DEFAULT '{}',
    -- A JSON object as it was given, or empty. Text, because jsonb would change it, and refuses \u0000.
    ADD COLUMN metadata text NOT NULL DEFAULT '' CHECK (octet_length(metadata) <= 4096);

-- Tells every replica of the control plane, at the commit, that a key, or all keys of a team or an organization, must
-- not be accepted any more: '<revision> <what> <id>', for a key its public id. The change feed says the same a moment
-- later; this is the lane that overtakes it.
--
-- Triggers of a table fire in the order of their names: config_change, which makes the revision, comes before.
CREATE FUNCTION nemo_notify_revocation() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    gone jsonb := to_jsonb(OLD);
    current_revision bigint;
BEGIN
    SELECT revision INTO current_revision FROM config_revision;
    -- What goes with its organization or team is told by that.
    IF TG_OP = 'DELETE' AND EXISTS (
        SELECT FROM config_changes WHERE revision = current_revision AND op = 'delete'
            AND (kind, id) IN ((1, uuid_send((gone ->> 'org_id')::uuid)), (2, uuid_send((gone ->> 'team_id')::uuid)))
    ) THEN
        RETURN NULL;
    END IF;
    PERFORM pg_notify('nemo_revoked', format('%s %s %s', current_revision, TG_ARGV[0],
        gone ->> CASE TG_ARGV[0] WHEN 'key' THEN 'public_id' ELSE 'id' END));
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION nemo_notify_revocation() FROM PUBLIC;

CREATE TRIGGER revocation_on_disable AFTER UPDATE ON api_keys FOR EACH ROW
    WHEN (NEW.disabled AND NOT OLD.disabled) EXECUTE FUNCTION nemo_notify_revocation('key');
CREATE TRIGGER revocation_on_delete AFTER DELETE ON api_keys FOR EACH ROW
    EXECUTE FUNCTION nemo_notify_revocation('key');
CREATE TRIGGER revocation_on_disable AFTER UPDATE ON teams FOR EACH ROW
    WHEN (NEW.disabled AND NOT OLD.disabled) EXECUTE FUNCTION nemo_notify_revocation('team');
CREATE TRIGGER revocation_on_delete AFTER DELETE ON teams FOR EACH ROW
    EXECUTE FUNCTION nemo_notify_revocation('team');
CREATE TRIGGER revocation_on_disable AFTER UPDATE ON organizations FOR EACH ROW
    WHEN (NEW.disabled AND NOT OLD.disabled) EXECUTE FUNCTION nemo_notify_revocation('organization');
CREATE TRIGGER revocation_on_delete AFTER DELETE ON organizations FOR EACH ROW
    EXECUTE FUNCTION nemo_notify_revocation('organization');

-- The nodes of the whole installation, as the replica that each is connected to writes them: whoever waits for the
-- fleet reads them. A node counts while its lease lasts; the database's clock decides, nobody else's.
CREATE TABLE fleet_nodes (
    node_id text PRIMARY KEY,
    -- Process incarnation, and number of its subscription: a former stream must not overwrite a later one.
    epoch bigint NOT NULL,
    session bigint NOT NULL,
    -- Acknowledged.
    revision bigint NOT NULL,
    -- Newest revision that it refused, and why; 0 when the last push was applied.
    refused_revision bigint NOT NULL,
    refusal text NOT NULL,
    lease_until timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON fleet_nodes TO nemo_system;

RESET ROLE;
