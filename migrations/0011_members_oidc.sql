-- Members are known at an OIDC issuer, and admin tokens tell when they were used.
SET LOCAL ROLE nemo_owner;

-- A workload has a subject and no address.
ALTER TABLE members ALTER COLUMN email DROP NOT NULL;
ALTER TABLE members
    ADD COLUMN oidc_subject text,
    -- Who vouches for the subject. NULL with a subject: an administrator wrote it, for whichever issuer is configured.
    ADD COLUMN oidc_issuer text,
    ADD CONSTRAINT members_known_somehow CHECK (email IS NOT NULL OR oidc_subject IS NOT NULL),
    ADD CONSTRAINT members_issuer_of_subject CHECK (oidc_issuer IS NULL OR oidc_subject IS NOT NULL),
    ADD CONSTRAINT members_subject_taken UNIQUE (org_id, oidc_subject);
-- A person is looked for in all organizations.
CREATE INDEX members_by_subject ON members (oidc_subject) WHERE oidc_subject IS NOT NULL;
CREATE INDEX members_by_email ON members (email) WHERE email IS NOT NULL;

-- Written at most once in some minutes.
ALTER TABLE admin_tokens ADD COLUMN last_used_at timestamptz;
GRANT UPDATE (last_used_at) ON admin_tokens TO nemo_system;

RESET ROLE;
