-- The three roles. Roles belong to the whole cluster while this file runs once per database, several databases of one
-- cluster at the same time (tests do), so everything here tolerates that another database was first.
DO $$
DECLARE
    wanted text;
    settable boolean;
BEGIN
    IF current_setting('server_version_num')::int < 150000 THEN
        RAISE EXCEPTION 'Nemo Router needs PostgreSQL 15 or newer, this server is %', current_setting('server_version');
    END IF;

    FOREACH wanted IN ARRAY ARRAY['nemo_owner', 'nemo_app', 'nemo_system'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN
                    NULL; -- made by another database's migration meanwhile
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % does not exist and % may not create it', wanted, current_user
                        USING HINT = 'Connect as a role with CREATEROLE, or have an administrator create nemo_owner, '
                            'nemo_app and nemo_system (NOLOGIN) and grant all three to the connecting role.';
            END;
        END IF;

        -- Since PostgreSQL 16 membership alone does not allow SET ROLE.
        FOR attempt IN 1..20 LOOP
            settable := pg_has_role(current_user, wanted,
                CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END);
            EXIT WHEN settable;
            BEGIN
                EXECUTE format('GRANT %I TO %I', wanted, current_user);
            EXCEPTION
                WHEN unique_violation OR internal_error THEN
                    PERFORM pg_sleep(0.05); -- "tuple concurrently updated": the same grant from another database
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % exists and % may not grant it to itself', wanted, current_user
                        USING HINT = format('Have an administrator run: GRANT nemo_owner, nemo_app, nemo_system TO %I',
                            current_user);
            END;
        END LOOP;
    END LOOP;

    IF EXISTS (
        SELECT FROM pg_roles
        WHERE rolname IN ('nemo_owner', 'nemo_app', 'nemo_system') AND (rolsuper OR rolbypassrls)
    ) THEN
        RAISE EXCEPTION 'a nemo_ role is SUPERUSER or BYPASSRLS, which would switch tenant isolation off'
            USING HINT = 'ALTER ROLE nemo_app NOSUPERUSER NOBYPASSRLS; the same for nemo_system and nemo_owner.';
    END IF;
END $$;

-- Nobody but nemo_owner makes objects here; what SECURITY DEFINER functions find by name is ours.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO nemo_owner;
GRANT USAGE ON SCHEMA public TO nemo_app, nemo_system;
