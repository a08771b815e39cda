-- Who the database belongs to, its keys, its organisations and people, and the record of what they did.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE meta (
  id                 INTEGER PRIMARY KEY CHECK (id = 1),
  kind               TEXT NOT NULL,
  schema_version     INTEGER NOT NULL,
  oldest_compatible  INTEGER NOT NULL,
  recovery_public    TEXT,
  recovery_opened_at INTEGER,
  created_at         INTEGER NOT NULL
) STRICT;

CREATE TABLE migrations (
  version    INTEGER PRIMARY KEY,
  name       TEXT NOT NULL,
  applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE data_keys (
  id         TEXT NOT NULL PRIMARY KEY,
  purpose    TEXT NOT NULL,
  standing   TEXT NOT NULL,
  sample     BLOB,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX data_keys_current ON data_keys (purpose) WHERE standing = 'current';

CREATE TABLE key_wrappings (
  data_key   TEXT NOT NULL REFERENCES data_keys (id),
  recipient  TEXT NOT NULL,
  bytes      BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (data_key, recipient)
) STRICT, WITHOUT ROWID;

CREATE TABLE organisations (
  id         TEXT NOT NULL PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
  organisation TEXT NOT NULL PRIMARY KEY REFERENCES organisations (id),
  user_lock    TEXT NOT NULL,
  updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A principal or token without an organisation may act in all of them.
CREATE TABLE principals (
  id           TEXT NOT NULL PRIMARY KEY,
  organisation TEXT REFERENCES organisations (id),
  kind         TEXT NOT NULL,
  name         TEXT NOT NULL,
  created_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX principals_of_organisation ON principals (organisation, id);

CREATE TABLE tokens (
  id           TEXT NOT NULL PRIMARY KEY,
  organisation TEXT REFERENCES organisations (id),
  principal    TEXT NOT NULL REFERENCES principals (id),
  hash         TEXT NOT NULL UNIQUE,
  permissions  TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  created_by   TEXT NOT NULL,
  expires_at   INTEGER,
  used_at      INTEGER,
  revoked_at   INTEGER,
  revoked_by   TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_of_organisation ON tokens (organisation, id);

CREATE TABLE connections (
  id                 TEXT NOT NULL PRIMARY KEY,
  organisation       TEXT NOT NULL REFERENCES organisations (id),
  name               TEXT NOT NULL,
  kind               TEXT NOT NULL,
  base_url           TEXT NOT NULL,
  path_prefix        TEXT NOT NULL,
  username           TEXT NOT NULL,
  api_key            BLOB NOT NULL,
  hook_auth          TEXT NOT NULL,
  hook_secret        BLOB,
  hook_previous      BLOB,
  hook_hash          TEXT,
  hook_previous_hash TEXT,
  unlock_via         TEXT NOT NULL,
  max_rate           REAL,
  version            INTEGER NOT NULL,
  created_at         INTEGER NOT NULL,
  updated_at         INTEGER NOT NULL,
  removed_at         INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX connections_of_organisation ON connections (organisation, name);
-- The name is in the webhook's path, where no organisation is: it is unique among all.
CREATE UNIQUE INDEX connections_live ON connections (name) WHERE removed_at IS NULL;

CREATE TABLE push_certificates (
  id            TEXT NOT NULL PRIMARY KEY,
  organisation  TEXT NOT NULL REFERENCES organisations (id),
  topic         TEXT NOT NULL,
  fingerprint   TEXT NOT NULL,
  subject       TEXT NOT NULL,
  not_before    INTEGER NOT NULL,
  not_after     INTEGER NOT NULL,
  cell          BLOB NOT NULL,
  created_at    INTEGER NOT NULL,
  superseded_at INTEGER,
  removed_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX push_certificates_live ON push_certificates (organisation, topic)
  WHERE superseded_at IS NULL AND removed_at IS NULL;
CREATE INDEX push_certificates_of_organisation ON push_certificates (organisation, topic, id);

CREATE TABLE audit (
  organisation TEXT NOT NULL,
  id           TEXT NOT NULL,
  at           INTEGER NOT NULL,
  actor        TEXT NOT NULL,
  action       TEXT NOT NULL,
  subject      TEXT NOT NULL,
  result       TEXT NOT NULL,
  text         TEXT NOT NULL,
  mac_key      TEXT NOT NULL,
  mac          TEXT NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_of_subject ON audit (organisation, subject, id);
CREATE INDEX audit_of_actor ON audit (organisation, actor, id);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'an audit row is never changed'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'an audit row is never deleted'); END;

CREATE TABLE pace (
  name       TEXT NOT NULL PRIMARY KEY,
  tokens     REAL NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
