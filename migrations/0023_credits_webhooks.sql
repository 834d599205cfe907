-- Credits: what moved an organization's prepaid balance, payments as the provider told of them. Webhooks: endpoints,
-- events, deliveries.
SET LOCAL ROLE nemo_owner;

-- What was bought, given and taken back. The balance itself is the window of the organization's budget of kind 'credit';
-- each row is an entry of the ledger too. Append-only, and without a foreign key: it outlives its organization.
CREATE TABLE credit_movements (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('purchase', 'grant', 'refund')),
    -- Change of the balance in nano-USD.
    nanos bigint NOT NULL CHECK (nanos <> 0 AND (nanos < 0) = (kind = 'refund')),
    -- What was paid on top of it, or given back with it (negative).
    fee_nanos bigint NOT NULL DEFAULT 0,
    -- Name of the tier that the fee is of; empty without a fee.
    tier text NOT NULL DEFAULT '',
    -- What caused it; the same source is booked once.
    source text NOT NULL CHECK (source <> '' AND octet_length(source) <= 200),
    reason text NOT NULL DEFAULT '',
    -- The provider's id; empty when no payment caused it.
    payment_id text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credit_movements_once UNIQUE (org_id, source)
);
CREATE INDEX credit_movements_by_org ON credit_movements (org_id, id);
SELECT nemo_protect('credit_movements');
GRANT SELECT ON credit_movements TO nemo_app;
GRANT SELECT, INSERT ON credit_movements TO nemo_system;

-- Payments that were booked, and how much of each was paid back.
CREATE TABLE payments (
    -- The provider's. One payment is booked once, whoever it is said to be for.
    id text PRIMARY KEY CHECK (id <> '' AND octet_length(id) <= 180),
    org_id uuid NOT NULL,
    paid_nanos bigint NOT NULL CHECK (paid_nanos > 0),
    credit_nanos bigint NOT NULL CHECK (credit_nanos > 0),
    fee_nanos bigint NOT NULL CHECK (fee_nanos >= 0),
    tier text NOT NULL,
    -- Of what was paid, and of the credit.
    refunded_nanos bigint NOT NULL DEFAULT 0,
    refunded_credit_nanos bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (paid_nanos = credit_nanos + fee_nanos),
    CHECK (refunded_nanos BETWEEN 0 AND paid_nanos AND refunded_credit_nanos BETWEEN 0 AND credit_nanos)
);
CREATE INDEX payments_by_org ON payments (org_id, created_at);
SELECT nemo_protect('payments');
GRANT SELECT ON payments TO nemo_app;
GRANT SELECT, INSERT ON payments TO nemo_system;
GRANT UPDATE (refunded_nanos, refunded_credit_nanos) ON payments TO nemo_system;

-- Every event of the payment provider whose signature was right, and what came of it.
CREATE TABLE payment_events (
    -- The provider's.
    id text PRIMARY KEY CHECK (id <> '' AND octet_length(id) <= 180),
    -- NULL: it names none that exists.
    org_id uuid,
    event_type text NOT NULL,
    -- Empty: it is about none.
    payment_id text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('booked', 'duplicate', 'ignored', 'refused')),
    -- Why it was not booked.
    reason text NOT NULL,
    -- How often it came: providers repeat what was refused.
    received int NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payment_events_by_org ON payment_events (org_id, created_at);
CREATE INDEX payment_events_by_age ON payment_events (updated_at);
SELECT nemo_protect('payment_events');
GRANT SELECT ON payment_events TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON payment_events TO nemo_system;

-- Whether an organization was told that its balance is low: once each time that it falls below.
CREATE TABLE credit_alerts (
    org_id uuid PRIMARY KEY REFERENCES organizations ON DELETE CASCADE,
    low boolean NOT NULL,
    -- How often it fell below.
    falls bigint NOT NULL DEFAULT 0
);
SELECT nemo_protect('credit_alerts');
GRANT SELECT ON credit_alerts TO nemo_app;
GRANT SELECT, INSERT, UPDATE ON credit_alerts TO nemo_system;

-- The one rate limit of an organization that its tier guarantees; it comes and goes with the tier.
ALTER TABLE rate_limits ADD COLUMN from_tier boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX rate_limits_one_tier ON rate_limits (org_id) WHERE from_tier;

-- Where an organization wants to be told of events.
CREATE TABLE webhooks (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name text NOT NULL,
    url text NOT NULL,
    -- Empty: all.
    event_types text[] NOT NULL DEFAULT '{}',
    -- What deliveries are signed with, sealed.
    sealed bytea NOT NULL,
    -- The secret before, while receivers change over; signatures of both are sent until then.
    previous_sealed bytea,
    previous_until timestamptz,
    disabled boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT webhooks_name_taken UNIQUE (org_id, name),
    UNIQUE (org_id, id),
    CHECK ((previous_sealed IS NULL) = (previous_until IS NULL))
);
SELECT nemo_protect('webhooks');
GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks TO nemo_app, nemo_system;

-- What happened, exactly once for each key. Written in the transaction in which it happens.
CREATE TABLE webhook_events (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    event_type text NOT NULL,
    dedupe_key text NOT NULL CHECK (dedupe_key <> '' AND octet_length(dedupe_key) <= 200),
    -- The body as it is sent, to the byte; text, because it is signed.
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT webhook_events_once UNIQUE (org_id, dedupe_key),
    UNIQUE (org_id, id)
);
CREATE INDEX webhook_events_by_age ON webhook_events (created_at);
SELECT nemo_protect('webhook_events');
GRANT SELECT, INSERT ON webhook_events TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_events TO nemo_system;

-- One event on its way to one endpoint.
CREATE TABLE webhook_deliveries (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    webhook_id uuid NOT NULL,
    event_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    -- No more attempts after this.
    give_up_at timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    -- HTTP status of the last answer; NULL: there was none.
    last_status int,
    last_error text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When it was delivered or given up.
    ended_at timestamptz,
    CONSTRAINT webhook_deliveries_once UNIQUE (webhook_id, event_id),
    FOREIGN KEY (org_id, webhook_id) REFERENCES webhooks (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, event_id) REFERENCES webhook_events (org_id, id) ON DELETE CASCADE
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (org_id, webhook_id, id);
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (org_id, event_id);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;
SELECT nemo_protect('webhook_deliveries');
GRANT SELECT, INSERT, UPDATE ON webhook_deliveries TO nemo_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO nemo_system;

RESET ROLE;
