-- How long a request may wait for one upstream, in milliseconds; NULL: as the organization or the node has it.
SET LOCAL ROLE nemo_owner;

ALTER TABLE deployments
    ADD COLUMN timeout_connect_ms integer CHECK (timeout_connect_ms > 0),
    ADD COLUMN timeout_first_byte_ms integer CHECK (timeout_first_byte_ms > 0),
    ADD COLUMN timeout_idle_ms integer CHECK (timeout_idle_ms > 0),
    ADD COLUMN timeout_total_ms integer CHECK (timeout_total_ms > 0);

RESET ROLE;
