-- The catalog sync: what sources said, what became of it, and what waits for an operator. It belongs to the
-- installation: no org_id, and nemo_app only reads.
SET LOCAL ROLE nemo_owner;

CREATE TABLE catalog_runs (
    id uuid PRIMARY KEY,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- A JSON array of {"name", "models", "error"}.
    sources text NOT NULL,
    applied bigint NOT NULL CHECK (applied >= 0),
    held bigint NOT NULL CHECK (held >= 0)
);
CREATE INDEX catalog_runs_newest ON catalog_runs (started_at DESC);
GRANT SELECT ON catalog_runs TO nemo_app;
GRANT SELECT, INSERT, DELETE ON catalog_runs TO nemo_system;

-- What sources say that is different from the database: made at once, or held until it is approved or rejected.
CREATE TABLE catalog_changes (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL,
    model_id text NOT NULL,
    provider text NOT NULL,
    kind text NOT NULL,
    -- The whole change as JSON, to be made when it is approved.
    change text NOT NULL,
    source text NOT NULL,
    -- Why it is held; empty: it was made at once.
    reason text NOT NULL DEFAULT '',
    state text NOT NULL CHECK (state IN ('applied', 'held', 'approved', 'rejected', 'superseded')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at timestamptz,
    decided_by text
);
-- One open question at a time about the same thing.
CREATE UNIQUE INDEX catalog_changes_held ON catalog_changes (model_id, provider, kind) WHERE state = 'held';
CREATE INDEX catalog_changes_newest ON catalog_changes (created_at DESC, id DESC);
GRANT SELECT ON catalog_changes TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON catalog_changes TO nemo_system;

-- What each source listed when it last answered: what is missing the next time has vanished.
CREATE TABLE catalog_listings (
    source text NOT NULL,
    provider text NOT NULL,
    upstream_model text NOT NULL,
    model_id text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, provider, upstream_model)
);
GRANT SELECT ON catalog_listings TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON catalog_listings TO nemo_system;

-- Which source a field of a model (provider: empty) or of an offering is from, where it is from none, the source of the
-- model says it.
CREATE TABLE catalog_provenance (
    model_id text NOT NULL REFERENCES models ON DELETE CASCADE,
    provider text NOT NULL,
    field text NOT NULL,
    source text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_id, provider, field)
);
GRANT SELECT ON catalog_provenance TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON catalog_provenance TO nemo_system;

RESET ROLE;
