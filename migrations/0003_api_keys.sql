-- Virtual keys. Only hashes of their secrets are stored.
SET LOCAL ROLE nemo_owner;

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    team_id uuid NOT NULL,
    name text NOT NULL,
    public_id text NOT NULL UNIQUE,
    -- SHA-256 of the whole key.
    secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    -- The secret before the last rotation works until previous_valid_until.
    previous_secret_hash bytea CHECK (octet_length(previous_secret_hash) = 32),
    previous_valid_until timestamptz,
    disabled boolean NOT NULL DEFAULT false,
    expires_at timestamptz,
    -- Empty: every model of the organization.
    allowed_models text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz,
    FOREIGN KEY (org_id, team_id) REFERENCES teams (org_id, id) ON DELETE CASCADE,
    CHECK ((previous_secret_hash IS NULL) = (previous_valid_until IS NULL))
);
CREATE INDEX api_keys_by_org ON api_keys (org_id, id);
CREATE INDEX api_keys_by_team ON api_keys (org_id, team_id, id);
SELECT nemo_protect('api_keys');
GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO nemo_app, nemo_system;

RESET ROLE;
