-- Provider credentials and deployments: an organization's own, or the operator's (org_id NULL).
--
-- `owner` is org_id with NULL spelled out as the zero id, so that plain composite foreign keys can say "of the same
-- owner". That is what keeps an organization from sending the operator's credential to a URL of its choice.
SET LOCAL ROLE nemo_owner;

CREATE TABLE credentials (
    id uuid PRIMARY KEY,
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    name text NOT NULL,
    provider text NOT NULL,
    -- Sealed with the credential's id as context; only nodes and the control plane hold the key.
    sealed bytea NOT NULL,
    -- Last four characters of the secret, empty for short ones.
    hint text NOT NULL CHECK (length(hint) IN (0, 4)),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credentials_name_taken UNIQUE (owner, name),
    UNIQUE (owner, id)
);
SELECT nemo_protect('credentials');
GRANT SELECT, INSERT, UPDATE, DELETE ON credentials TO nemo_app, nemo_system;

-- Prices that override the catalog's for one deployment. Immutable and kept, like model_prices, but under tenant
-- isolation: what an organization pays is its own business.
CREATE TABLE deployment_prices (
    id text PRIMARY KEY,
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    deployment_id uuid NOT NULL,
    effective_from timestamptz NOT NULL DEFAULT now(),
    input bigint CHECK (input >= 0),
    output bigint CHECK (output >= 0),
    cache_read bigint CHECK (cache_read >= 0),
    cache_write bigint CHECK (cache_write >= 0),
    UNIQUE (owner, id)
);
SELECT nemo_protect('deployment_prices');
GRANT SELECT, INSERT ON deployment_prices TO nemo_app, nemo_system;

CREATE TABLE deployments (
    id uuid PRIMARY KEY,
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    name text NOT NULL,
    provider text NOT NULL,
    -- Empty: the provider's own.
    base_url text NOT NULL,
    credential_id uuid,
    model_id text NOT NULL CONSTRAINT deployments_model_exists REFERENCES models,
    upstream_model text NOT NULL,
    weight bigint NOT NULL CHECK (weight BETWEEN 0 AND 1000000),
    disabled boolean NOT NULL DEFAULT false,
    price_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deployments_name_taken UNIQUE (owner, name),
    UNIQUE (owner, id),
    -- NO ACTION, not RESTRICT: deleting an organization deletes both sides in one statement.
    CONSTRAINT deployments_credential_of_owner FOREIGN KEY (owner, credential_id) REFERENCES credentials (owner, id),
    FOREIGN KEY (owner, price_id) REFERENCES deployment_prices (owner, id)
);
CREATE INDEX deployments_by_model ON deployments (model_id);
CREATE INDEX deployments_by_credential ON deployments (credential_id);
SELECT nemo_protect('deployments');
GRANT SELECT, INSERT, UPDATE, DELETE ON deployments TO nemo_app, nemo_system;

-- An organization may put the operator's deployments into its model groups without seeing them otherwise: this tells
-- which of the given ids are the operator's, and nothing else. The policy lets the function's owner see just those.
CREATE POLICY operator_rows ON deployments FOR SELECT TO nemo_owner USING (org_id IS NULL);
CREATE FUNCTION nemo_operator_deployments(ids uuid[]) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS
    $$ SELECT id FROM deployments WHERE id = ANY (ids) AND org_id IS NULL $$;
REVOKE ALL ON FUNCTION nemo_operator_deployments(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nemo_operator_deployments(uuid[]) TO nemo_app, nemo_system;

RESET ROLE;
