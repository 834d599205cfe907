-- The model catalog. It belongs to the installation: no org_id, and nemo_app only reads.
SET LOCAL ROLE nemo_owner;

CREATE TABLE models (
    id text PRIMARY KEY,
    display_name text NOT NULL,
    owned_by text NOT NULL,
    created_unix bigint NOT NULL,
    context_window bigint NOT NULL CHECK (context_window >= 0),
    max_output_tokens bigint NOT NULL CHECK (max_output_tokens >= 0),
    tags text[] NOT NULL DEFAULT '{}',
    aliases text[] NOT NULL DEFAULT '{}',
    input_modalities text[] NOT NULL DEFAULT '{}',
    output_modalities text[] NOT NULL DEFAULT '{}',
    endpoints text[] NOT NULL DEFAULT '{}',
    -- A bundled entry never replaces a custom one.
    source text NOT NULL CHECK (source IN ('bundled', 'discovered', 'custom'))
);
GRANT SELECT ON models TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON models TO nemo_system;

-- Prices in nano-USD per million tokens. Immutable and kept for ever, also when the model goes: every usage event
-- names the row that it was billed at.
CREATE TABLE model_prices (
    id text PRIMARY KEY,
    provider text NOT NULL,
    model_id text NOT NULL,
    effective_from timestamptz NOT NULL DEFAULT now(),
    input bigint CHECK (input >= 0),
    output bigint CHECK (output >= 0),
    cache_read bigint CHECK (cache_read >= 0),
    cache_write bigint CHECK (cache_write >= 0)
);
CREATE INDEX model_prices_history ON model_prices (provider, model_id, effective_from DESC);
GRANT SELECT ON model_prices TO nemo_app;
GRANT SELECT, INSERT ON model_prices TO nemo_system;

-- Who serves a model, under which name and at which current price.
CREATE TABLE model_offerings (
    model_id text NOT NULL REFERENCES models ON DELETE CASCADE,
    provider text NOT NULL,
    position int NOT NULL,
    upstream_model text NOT NULL,
    -- NULL: price unknown, which is not free.
    price_id text REFERENCES model_prices,
    PRIMARY KEY (model_id, provider)
);
GRANT SELECT ON model_offerings TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON model_offerings TO nemo_system;

RESET ROLE;
