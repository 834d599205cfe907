-- Model groups: a name that clients send, its primary pool (position 0) and its fallback chain; and settings.
SET LOCAL ROLE nemo_owner;

CREATE TABLE model_groups (
    id uuid PRIMARY KEY,
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    name text NOT NULL,
    -- Empty: the organization's default.
    strategy text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_groups_name_taken UNIQUE (owner, name),
    UNIQUE (owner, id)
);
SELECT nemo_protect('model_groups');
GRANT SELECT, INSERT, UPDATE, DELETE ON model_groups TO nemo_app, nemo_system;

CREATE TABLE group_links (
    group_id uuid NOT NULL,
    position int NOT NULL CHECK (position >= 0),
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    PRIMARY KEY (group_id, position),
    UNIQUE (owner, group_id, position),
    FOREIGN KEY (owner, group_id) REFERENCES model_groups (owner, id) ON DELETE CASCADE
);
SELECT nemo_protect('group_links');
GRANT SELECT, INSERT, UPDATE, DELETE ON group_links TO nemo_app, nemo_system;

CREATE TABLE link_deployments (
    group_id uuid NOT NULL,
    position int NOT NULL,
    deployment_id uuid NOT NULL,
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    -- Own deployments and the operator's, never another organization's.
    deployment_owner uuid NOT NULL,
    -- Order inside the pool as it was given.
    ordinal int NOT NULL,
    weight bigint NOT NULL CHECK (weight BETWEEN 0 AND 1000000),
    PRIMARY KEY (group_id, position, deployment_id),
    FOREIGN KEY (owner, group_id, position) REFERENCES group_links (owner, group_id, position) ON DELETE CASCADE,
    CONSTRAINT link_deployments_in_use FOREIGN KEY (deployment_owner, deployment_id) REFERENCES deployments (owner, id),
    CHECK (deployment_owner IN (coalesce(org_id, '00000000-0000-0000-0000-000000000000'),
                                '00000000-0000-0000-0000-000000000000'))
);
CREATE INDEX link_deployments_by_deployment ON link_deployments (deployment_owner, deployment_id);
SELECT nemo_protect('link_deployments');
GRANT SELECT, INSERT, UPDATE, DELETE ON link_deployments TO nemo_app, nemo_system;

-- Settings of an organization, or of the installation (org_id NULL).
CREATE TABLE settings (
    id uuid PRIMARY KEY,
    org_id uuid REFERENCES organizations ON DELETE CASCADE,
    owner uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, '00000000-0000-0000-0000-000000000000')) STORED,
    key text NOT NULL,
    value jsonb NOT NULL,
    CONSTRAINT settings_key_taken UNIQUE (owner, key)
);
SELECT nemo_protect('settings');
GRANT SELECT, INSERT, UPDATE, DELETE ON settings TO nemo_app, nemo_system;

RESET ROLE;
