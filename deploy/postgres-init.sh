#!/bin/sh
# Run once by the image of PostgreSQL, as its superuser, on an empty data folder: the vault's role, which owns its database and
# nothing else, and is no superuser.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set password `cat "${KEYVAULT_PASSWORD_FILE:-/run/secrets/keyvault_password}"`
CREATE ROLE keyvault LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE keyvault OWNER keyvault ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE keyvault FROM PUBLIC;
\connect keyvault
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO keyvault;
SQL
