-- What all migrations produce in an empty SQLite database. Generated from them by
-- “python -m novacron.database.snapshot”; do not edit.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE api_token (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    hash TEXT NOT NULL,
    resources TEXT NOT NULL,
    created DOUBLE NOT NULL,
    created_by TEXT NOT NULL,
    expires DOUBLE,
    revoked DOUBLE,
    former TEXT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE audit_anchor (
    node_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    recorded DOUBLE NOT NULL,
    PRIMARY KEY (node_id, seq, hash)
);
CREATE TABLE cluster_identity (
    slot INTEGER NOT NULL CHECK (slot = 1),
    authority TEXT NOT NULL,
    created DOUBLE NOT NULL,
    seal TEXT NOT NULL,
    PRIMARY KEY (slot)
);
CREATE TABLE node_heartbeat (
    node_id TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    beat DOUBLE NOT NULL,
    PRIMARY KEY (node_id)
);
CREATE TABLE node_identity (
    slot INTEGER NOT NULL CHECK (slot = 1),
    node_id TEXT NOT NULL,
    created DOUBLE NOT NULL,
    seal TEXT NOT NULL,
    PRIMARY KEY (slot)
);
CREATE TABLE node_registration (
    node_id TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    addresses TEXT NOT NULL,
    started DOUBLE NOT NULL,
    stopped DOUBLE,
    PRIMARY KEY (node_id)
);
PRAGMA user_version=4;
