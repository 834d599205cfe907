-- Budgets and rate limits of organizations, teams and keys, and which thresholds were crossed.
SET LOCAL ROLE nemo_owner;

-- What composite foreign keys point at. Takes the place of the index on the same columns that is not unique.
CREATE UNIQUE INDEX api_keys_of_org ON api_keys (org_id, id);
DROP INDEX api_keys_by_org;

CREATE TABLE budgets (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    -- At most one of the two; neither: the whole organization.
    team_id uuid,
    key_id uuid,
    name text NOT NULL,
    -- 'credit' is the organization's prepaid balance, of which there is at most one.
    kind text NOT NULL DEFAULT 'limit' CHECK (kind IN ('limit', 'credit')),
    -- Nano-USD per window. What counts is the copy in the row of the window.
    limit_nanos bigint NOT NULL CHECK (limit_nanos >= 0),
    window_kind text NOT NULL CHECK (window_kind IN ('day', 'week', 'month', 'rolling', 'total')),
    -- Of rolling windows only.
    window_hours int CHECK (window_hours BETWEEN 1 AND 744),
    -- IANA name: where days, weeks and months begin.
    time_zone text NOT NULL DEFAULT 'UTC',
    over_budget text NOT NULL DEFAULT 'cap' CHECK (over_budget IN ('cap', 'reject')),
    no_lease text NOT NULL DEFAULT 'deny' CHECK (no_lease IN ('deny', 'allow')),
    lost_lease text NOT NULL DEFAULT 'charge' CHECK (lost_lease IN ('charge', 'release')),
    reservation text NOT NULL DEFAULT 'strict' CHECK (reservation IN ('strict', 'estimated')),
    -- Percent of the limit at which webhooks are told, ascending.
    thresholds int[] NOT NULL DEFAULT '{}',
    disabled boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT budgets_name_taken UNIQUE (org_id, name),
    -- What composite foreign keys point at: a reference can't cross organizations.
    UNIQUE (org_id, id),
    FOREIGN KEY (org_id, team_id) REFERENCES teams (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, key_id) REFERENCES api_keys (org_id, id) ON DELETE CASCADE,
    CHECK (team_id IS NULL OR key_id IS NULL),
    CHECK ((window_kind = 'rolling') = (window_hours IS NOT NULL)),
    CHECK (kind = 'limit' OR (team_id IS NULL AND key_id IS NULL AND window_kind = 'total'))
);
CREATE UNIQUE INDEX budgets_one_credit ON budgets (org_id) WHERE kind = 'credit';
-- For lists by team and key, and for the cascade.
CREATE INDEX budgets_by_team ON budgets (org_id, team_id) WHERE team_id IS NOT NULL;
CREATE INDEX budgets_by_key ON budgets (org_id, key_id) WHERE key_id IS NOT NULL;
SELECT nemo_protect('budgets');
GRANT SELECT, INSERT, UPDATE, DELETE ON budgets TO nemo_app, nemo_system;
SELECT nemo_publish('budgets', 9, 'id', 'own');

CREATE TABLE rate_limits (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    -- At most one of the two; neither: the whole organization.
    team_id uuid,
    key_id uuid,
    name text NOT NULL,
    -- Only for model groups with such a name, `*` stands for any characters. Empty: for all together.
    model text NOT NULL DEFAULT '',
    -- NULL: not limited.
    requests_per_minute bigint CHECK (requests_per_minute > 0),
    tokens_per_minute bigint CHECK (tokens_per_minute > 0),
    concurrent int CHECK (concurrent > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT rate_limits_name_taken UNIQUE (org_id, name),
    UNIQUE (org_id, id),
    FOREIGN KEY (org_id, team_id) REFERENCES teams (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, key_id) REFERENCES api_keys (org_id, id) ON DELETE CASCADE,
    CHECK (team_id IS NULL OR key_id IS NULL),
    CHECK (num_nonnulls(requests_per_minute, tokens_per_minute, concurrent) > 0)
);
CREATE INDEX rate_limits_by_team ON rate_limits (org_id, team_id) WHERE team_id IS NOT NULL;
CREATE INDEX rate_limits_by_key ON rate_limits (org_id, key_id) WHERE key_id IS NOT NULL;
SELECT nemo_protect('rate_limits');
GRANT SELECT, INSERT, UPDATE, DELETE ON rate_limits TO nemo_app, nemo_system;
SELECT nemo_publish('rate_limits', 10, 'id', 'own');

-- Thresholds that the spend of a window has crossed and that were told: each row is one event, written together with it.
CREATE TABLE budget_crossings (
    budget_id uuid NOT NULL,
    org_id uuid NOT NULL,
    window_start timestamptz NOT NULL,
    -- NULL: never. What was told of a window is forgotten some time after it.
    window_end timestamptz,
    -- Percent of the limit; 0: nothing is left.
    percent int NOT NULL CHECK (percent >= 0),
    -- Nano-USD, as they were then.
    limit_nanos bigint NOT NULL,
    spent_nanos bigint NOT NULL,
    crossed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (budget_id, window_start, percent),
    FOREIGN KEY (org_id, budget_id) REFERENCES budgets (org_id, id) ON DELETE CASCADE
);
CREATE INDEX budget_crossings_by_end ON budget_crossings (window_end) WHERE window_end IS NOT NULL;
SELECT nemo_protect('budget_crossings');
GRANT SELECT ON budget_crossings TO nemo_app;
GRANT SELECT, INSERT, DELETE ON budget_crossings TO nemo_system;

RESET ROLE;
