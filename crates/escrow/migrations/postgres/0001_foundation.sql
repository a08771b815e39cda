-- Who the database belongs to, its keys, its organisations and people, and the record of what they did.
-- Every column is described in docs/DATA_MODEL.md. Text compares by its bytes ("C"), as it does on SQLite, whatever the locale.

-- The elements of a list, by the name that SQLite has for it; its `value ->> 0` reads an element of an element on both.
CREATE FUNCTION json_each(list TEXT) RETURNS TABLE (value JSONB)
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 100 AS
  'SELECT jsonb_array_elements(list::jsonb)';

CREATE TABLE meta (
  id                 BIGINT PRIMARY KEY CHECK (id = 1),
  kind               TEXT COLLATE "C" NOT NULL,
  schema_version     BIGINT NOT NULL,
  oldest_compatible  BIGINT NOT NULL,
  recovery_public    TEXT COLLATE "C",
  recovery_opened_at BIGINT,
  created_at         BIGINT NOT NULL
);

CREATE TABLE migrations (
  version    BIGINT PRIMARY KEY,
  name       TEXT COLLATE "C" NOT NULL,
  applied_at BIGINT NOT NULL
);

CREATE TABLE data_keys (
  id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  purpose    TEXT COLLATE "C" NOT NULL,
  standing   TEXT COLLATE "C" NOT NULL,
  sample     BYTEA,
  created_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX data_keys_current ON data_keys (purpose) WHERE standing = 'current';

CREATE TABLE key_wrappings (
  data_key   TEXT COLLATE "C" NOT NULL REFERENCES data_keys (id),
  recipient  TEXT COLLATE "C" NOT NULL,
  bytes      BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (data_key, recipient)
);

CREATE TABLE organisations (
  id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  name       TEXT COLLATE "C" NOT NULL UNIQUE,
  created_at BIGINT NOT NULL
);

CREATE TABLE policies (
  organisation TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES organisations (id),
  user_lock    TEXT COLLATE "C" NOT NULL,
  updated_at   BIGINT NOT NULL
);

-- A principal or token without an organisation may act in all of them.
CREATE TABLE principals (
  id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  organisation TEXT COLLATE "C" REFERENCES organisations (id),
  kind         TEXT COLLATE "C" NOT NULL,
  name         TEXT COLLATE "C" NOT NULL,
  created_at   BIGINT NOT NULL
);

CREATE INDEX principals_of_organisation ON principals (organisation, id);

CREATE TABLE tokens (
  id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  organisation TEXT COLLATE "C" REFERENCES organisations (id),
  principal    TEXT COLLATE "C" NOT NULL REFERENCES principals (id),
  hash         TEXT COLLATE "C" NOT NULL UNIQUE,
  permissions  TEXT COLLATE "C" NOT NULL,
  created_at   BIGINT NOT NULL,
  created_by   TEXT COLLATE "C" NOT NULL,
  expires_at   BIGINT,
  used_at      BIGINT,
  revoked_at   BIGINT,
  revoked_by   TEXT COLLATE "C"
);

CREATE INDEX tokens_of_organisation ON tokens (organisation, id);

CREATE TABLE connections (
  id                 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  organisation       TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  name               TEXT COLLATE "C" NOT NULL,
  kind               TEXT COLLATE "C" NOT NULL,
  base_url           TEXT COLLATE "C" NOT NULL,
  path_prefix        TEXT COLLATE "C" NOT NULL,
  username           TEXT COLLATE "C" NOT NULL,
  api_key            BYTEA NOT NULL,
  hook_auth          TEXT COLLATE "C" NOT NULL,
  hook_secret        BYTEA,
  hook_previous      BYTEA,
  hook_hash          TEXT COLLATE "C",
  hook_previous_hash TEXT COLLATE "C",
  unlock_via         TEXT COLLATE "C" NOT NULL,
  max_rate           DOUBLE PRECISION,
  version            BIGINT NOT NULL,
  created_at         BIGINT NOT NULL,
  updated_at         BIGINT NOT NULL,
  removed_at         BIGINT
);

CREATE INDEX connections_of_organisation ON connections (organisation, name);
-- The name is in the webhook's path, where no organisation is: it is unique among all.
CREATE UNIQUE INDEX connections_live ON connections (name) WHERE removed_at IS NULL;

CREATE TABLE push_certificates (
  id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  organisation  TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  topic         TEXT COLLATE "C" NOT NULL,
  fingerprint   TEXT COLLATE "C" NOT NULL,
  subject       TEXT COLLATE "C" NOT NULL,
  not_before    BIGINT NOT NULL,
  not_after     BIGINT NOT NULL,
  cell          BYTEA NOT NULL,
  created_at    BIGINT NOT NULL,
  superseded_at BIGINT,
  removed_at    BIGINT
);

CREATE UNIQUE INDEX push_certificates_live ON push_certificates (organisation, topic)
  WHERE superseded_at IS NULL AND removed_at IS NULL;
CREATE INDEX push_certificates_of_organisation ON push_certificates (organisation, topic, id);

CREATE TABLE audit (
  organisation TEXT COLLATE "C" NOT NULL,
  id           TEXT COLLATE "C" NOT NULL,
  at           BIGINT NOT NULL,
  actor        TEXT COLLATE "C" NOT NULL,
  action       TEXT COLLATE "C" NOT NULL,
  subject      TEXT COLLATE "C" NOT NULL,
  result       TEXT COLLATE "C" NOT NULL,
  text         TEXT COLLATE "C" NOT NULL,
  mac_key      TEXT COLLATE "C" NOT NULL,
  mac          TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (organisation, id)
);

CREATE INDEX audit_of_subject ON audit (organisation, subject, id);
CREATE INDEX audit_of_actor ON audit (organisation, actor, id);

CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS
  'BEGIN RAISE EXCEPTION ''%'', TG_ARGV[0]; END';

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
  FOR EACH ROW EXECUTE FUNCTION refuse('an audit row is never changed');
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
  FOR EACH ROW EXECUTE FUNCTION refuse('an audit row is never deleted');
CREATE TRIGGER audit_is_never_emptied BEFORE TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('an audit row is never deleted');

CREATE TABLE pace (
  name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  tokens     DOUBLE PRECISION NOT NULL,
  updated_at BIGINT NOT NULL
);
