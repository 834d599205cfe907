-- What routing decides by: the load that a deployment is good for, and the tags that a model group requires.
SET LOCAL ROLE nemo_owner;

ALTER TABLE deployments
    -- Requests and tokens per minute, as the provider advertises them; NULL: not known.
    ADD COLUMN rpm integer CHECK (rpm > 0),
    ADD COLUMN tpm integer CHECK (tpm > 0);

ALTER TABLE model_groups
    -- Every deployment that serves the group must have them all.
    ADD COLUMN required_tags text[] NOT NULL DEFAULT '{}';

RESET ROLE;
