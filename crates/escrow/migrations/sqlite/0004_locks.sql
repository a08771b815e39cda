-- Locks by the organisation: what is known by Apple's enrolment service and by its own lock status, and every call to lock.
-- Every column is described in docs/DATA_MODEL.md.

ALTER TABLE operations ADD COLUMN code TEXT;
ALTER TABLE operations ADD COLUMN message TEXT;
ALTER TABLE operations ADD COLUMN server_token TEXT;
ALTER TABLE operations ADD COLUMN override_reason TEXT;
ALTER TABLE operations ADD COLUMN status_asked_at INTEGER;

CREATE TABLE lock_calls (
  organisation    TEXT NOT NULL REFERENCES organisations (id),
  id              TEXT NOT NULL,
  operation       TEXT,
  serial          TEXT NOT NULL,
  position        INTEGER NOT NULL,
  code            TEXT NOT NULL,
  credential      TEXT NOT NULL,
  recipient       TEXT NOT NULL,
  lease_number    INTEGER NOT NULL,
  began_at        INTEGER NOT NULL,
  ended_at        INTEGER,
  lost_at         INTEGER,
  outcome         TEXT,
  response_status TEXT,
  status          INTEGER,
  retry_after     INTEGER,
  diagnostic      TEXT,
  late_outcome    TEXT,
  late_at         INTEGER,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

-- One call in flight a serial number: the database itself refuses a second (R16).
CREATE UNIQUE INDEX lock_calls_in_flight ON lock_calls (serial) WHERE ended_at IS NULL AND lost_at IS NULL;
CREATE INDEX lock_calls_of_operation ON lock_calls (organisation, operation, id);
CREATE INDEX lock_calls_of_device ON lock_calls (serial, began_at);

ALTER TABLE devices ADD COLUMN lock_state TEXT NOT NULL DEFAULT 'none';
ALTER TABLE devices ADD COLUMN lock_evidence TEXT NOT NULL DEFAULT 'nothing';
ALTER TABLE devices ADD COLUMN lock_at INTEGER;
ALTER TABLE devices ADD COLUMN listed_at INTEGER;
ALTER TABLE devices ADD COLUMN status_asked_at INTEGER;
ALTER TABLE devices ADD COLUMN status_problem TEXT;
ALTER TABLE devices ADD COLUMN status_due_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN status_expected TEXT;
ALTER TABLE devices ADD COLUMN status_expected_until INTEGER;

CREATE INDEX devices_by_lock ON devices (organisation, lock_state, serial) WHERE lock_state <> 'none';
CREATE INDEX devices_by_status_due ON devices (organisation, status_due_at);

CREATE TABLE lock_statuses (
  organisation  TEXT NOT NULL REFERENCES organisations (id),
  id            TEXT NOT NULL,
  serial        TEXT NOT NULL,
  is_locked     INTEGER,
  lock_type     TEXT,
  more          TEXT,
  first_at      INTEGER NOT NULL,
  last_at       INTEGER NOT NULL,
  believed_from INTEGER,
  believed_at   INTEGER,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX lock_statuses_of_device ON lock_statuses (organisation, serial, id);

CREATE TABLE business_apis (
  organisation TEXT NOT NULL PRIMARY KEY REFERENCES organisations (id),
  client_id    TEXT NOT NULL,
  key_id       TEXT NOT NULL,
  cell         BLOB NOT NULL,
  version      INTEGER NOT NULL,
  problem      TEXT,
  problem_at   INTEGER,
  retry_at     INTEGER,
  cursor       TEXT,
  listed_at    INTEGER,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  removed_at   INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE server_token_keys (
  organisation TEXT NOT NULL REFERENCES organisations (id),
  id           TEXT NOT NULL,
  certificate  TEXT NOT NULL,
  cell         BLOB NOT NULL,
  created_at   INTEGER NOT NULL,
  used_at      INTEGER,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE server_tokens (
  organisation     TEXT NOT NULL REFERENCES organisations (id),
  id               TEXT NOT NULL,
  name             TEXT NOT NULL,
  kind             TEXT NOT NULL,
  base_url         TEXT,
  dep_name         TEXT,
  cell             BLOB NOT NULL,
  version          INTEGER NOT NULL,
  expires_at       INTEGER,
  server_uuid      TEXT,
  server_name      TEXT,
  org_name         TEXT,
  problem          TEXT,
  problem_at       INTEGER,
  mended_at        INTEGER,
  retry_at         INTEGER,
  listing          TEXT NOT NULL,
  cursor           TEXT,
  listing_run      INTEGER NOT NULL,
  listed_at        INTEGER,
  whole_at         INTEGER,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  removed_at       INTEGER,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX server_tokens_live ON server_tokens (organisation, name) WHERE removed_at IS NULL;

CREATE TABLE listed_devices (
  organisation            TEXT NOT NULL REFERENCES organisations (id),
  server_token            TEXT NOT NULL,
  serial                  TEXT NOT NULL,
  model                   TEXT,
  description             TEXT,
  color                   TEXT,
  device_family           TEXT,
  os                      TEXT,
  asset_tag               TEXT,
  profile_status          TEXT,
  assigned_by             TEXT,
  assigned_at             INTEGER,
  imei                    TEXT NOT NULL,
  meid                    TEXT NOT NULL,
  eid                     TEXT,
  is_replacement          INTEGER,
  released_by_replacement INTEGER,
  migration_deadline      INTEGER,
  first_at                INTEGER NOT NULL,
  last_at                 INTEGER NOT NULL,
  listing_run             INTEGER NOT NULL,
  gone_at                 INTEGER,
  PRIMARY KEY (organisation, server_token, serial)
) STRICT, WITHOUT ROWID;

CREATE INDEX listed_devices_of_device ON listed_devices (organisation, serial, server_token);

ALTER TABLE policies ADD COLUMN lock_on_listing TEXT NOT NULL DEFAULT 'off';
ALTER TABLE policies ADD COLUMN listing_paused_at INTEGER;
