-- Organizations, teams, members, admin tokens, and the two functions that tenant isolation rests on.
SET LOCAL ROLE nemo_owner;

-- The organization that this transaction acts for; NULL when none was set, which matches no row.
CREATE FUNCTION nemo_current_org() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT nullif(current_setting('nemo.org_id', true), '')::uuid $$;

-- Row-level security for one table with an org_id (nullable: the operator's rows, which nemo_app never sees).
CREATE FUNCTION nemo_protect(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY tenant ON %s TO nemo_app '
        'USING (org_id = nemo_current_org()) WITH CHECK (org_id = nemo_current_org())', target);
    EXECUTE format('CREATE POLICY system ON %s TO nemo_system USING (true) WITH CHECK (true)', target);
END $$;
REVOKE ALL ON FUNCTION nemo_protect(regclass) FROM PUBLIC;

CREATE TABLE organizations (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    disabled boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- The one table whose tenant column is its own id.
ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE organizations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON organizations TO nemo_app
    USING (id = nemo_current_org()) WITH CHECK (id = nemo_current_org());
CREATE POLICY system ON organizations TO nemo_system USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE ON organizations TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON organizations TO nemo_system;

CREATE TABLE teams (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name text NOT NULL,
    disabled boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT teams_name_taken UNIQUE (org_id, name),
    -- What composite foreign keys point at: a reference can't cross organizations.
    UNIQUE (org_id, id)
);
SELECT nemo_protect('teams');
GRANT SELECT, INSERT, UPDATE, DELETE ON teams TO nemo_app, nemo_system;

CREATE TABLE members (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    -- Lower case.
    email text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT members_email_taken UNIQUE (org_id, email)
);
CREATE INDEX members_by_org ON members (org_id, id);
SELECT nemo_protect('members');
GRANT SELECT, INSERT, UPDATE, DELETE ON members TO nemo_app, nemo_system;

CREATE TABLE admin_tokens (
    id uuid PRIMARY KEY,
    -- NULL: the operator's, may do everything.
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('operator', 'owner', 'admin', 'member', 'viewer')),
    public_id text NOT NULL UNIQUE,
    -- SHA-256 of the whole token.
    secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    CHECK ((org_id IS NULL) = (role = 'operator'))
);
CREATE INDEX admin_tokens_by_org ON admin_tokens (org_id, id);
SELECT nemo_protect('admin_tokens');
GRANT SELECT, INSERT, DELETE ON admin_tokens TO nemo_app, nemo_system;

RESET ROLE;
