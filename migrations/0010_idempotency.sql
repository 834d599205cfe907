-- Answers of creates that came with an idempotency key: the same request again gets the same answer for 24 hours.
SET LOCAL ROLE nemo_owner;

CREATE TABLE idempotency_keys (
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    -- Kind and id of the caller: an answer may hold a secret, which is for nobody else.
    actor text NOT NULL,
    key text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    -- Digest of the request and its answer, sealed.
    sealed bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_taken PRIMARY KEY (owner, actor, key)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
SELECT nemo_protect('idempotency_keys');
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO nemo_app, nemo_system;
-- To lock what is purged, so that replicas skip each other's rows.
GRANT UPDATE ON idempotency_keys TO nemo_system;

RESET ROLE;
