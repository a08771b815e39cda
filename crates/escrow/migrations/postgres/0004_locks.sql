-- Locks by the organisation: what is known by Apple's enrolment service and by its own lock status, and every call to lock.
-- Every column is described in docs/DATA_MODEL.md.

ALTER TABLE operations ADD COLUMN code TEXT COLLATE "C";
ALTER TABLE operations ADD COLUMN message TEXT COLLATE "C";
ALTER TABLE operations ADD COLUMN server_token TEXT COLLATE "C";
ALTER TABLE operations ADD COLUMN override_reason TEXT COLLATE "C";
ALTER TABLE operations ADD COLUMN status_asked_at BIGINT;

CREATE TABLE lock_calls (
  organisation    TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id              TEXT COLLATE "C" NOT NULL,
  operation       TEXT COLLATE "C",
  serial          TEXT COLLATE "C" NOT NULL,
  position        BIGINT NOT NULL,
  code            TEXT COLLATE "C" NOT NULL,
  credential      TEXT COLLATE "C" NOT NULL,
  recipient       TEXT COLLATE "C" NOT NULL,
  lease_number    BIGINT NOT NULL,
  began_at        BIGINT NOT NULL,
  ended_at        BIGINT,
  lost_at         BIGINT,
  outcome         TEXT COLLATE "C",
  response_status TEXT COLLATE "C",
  status          BIGINT,
  retry_after     BIGINT,
  diagnostic      TEXT COLLATE "C",
  late_outcome    TEXT COLLATE "C",
  late_at         BIGINT,
  PRIMARY KEY (organisation, id)
);

-- One call in flight a serial number: the database itself refuses a second (R16).
CREATE UNIQUE INDEX lock_calls_in_flight ON lock_calls (serial) WHERE ended_at IS NULL AND lost_at IS NULL;
CREATE INDEX lock_calls_of_operation ON lock_calls (organisation, operation, id);
CREATE INDEX lock_calls_of_device ON lock_calls (serial, began_at);

ALTER TABLE devices ADD COLUMN lock_state TEXT COLLATE "C" NOT NULL DEFAULT 'none';
ALTER TABLE devices ADD COLUMN lock_evidence TEXT COLLATE "C" NOT NULL DEFAULT 'nothing';
ALTER TABLE devices ADD COLUMN lock_at BIGINT;
ALTER TABLE devices ADD COLUMN listed_at BIGINT;
ALTER TABLE devices ADD COLUMN status_asked_at BIGINT;
ALTER TABLE devices ADD COLUMN status_problem TEXT COLLATE "C";
ALTER TABLE devices ADD COLUMN status_due_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN status_expected TEXT COLLATE "C";
ALTER TABLE devices ADD COLUMN status_expected_until BIGINT;

CREATE INDEX devices_by_lock ON devices (organisation, lock_state, serial) WHERE lock_state <> 'none';
CREATE INDEX devices_by_status_due ON devices (organisation, status_due_at);

CREATE TABLE lock_statuses (
  organisation  TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id            TEXT COLLATE "C" NOT NULL,
  serial        TEXT COLLATE "C" NOT NULL,
  is_locked     BIGINT,
  lock_type     TEXT COLLATE "C",
  more          TEXT COLLATE "C",
  first_at      BIGINT NOT NULL,
  last_at       BIGINT NOT NULL,
  believed_from BIGINT,
  believed_at   BIGINT,
  PRIMARY KEY (organisation, id)
);

CREATE INDEX lock_statuses_of_device ON lock_statuses (organisation, serial, id);

CREATE TABLE business_apis (
  organisation TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES organisations (id),
  client_id    TEXT COLLATE "C" NOT NULL,
  key_id       TEXT COLLATE "C" NOT NULL,
  cell         BYTEA NOT NULL,
  version      BIGINT NOT NULL,
  problem      TEXT COLLATE "C",
  problem_at   BIGINT,
  retry_at     BIGINT,
  cursor       TEXT COLLATE "C",
  listed_at    BIGINT,
  created_at   BIGINT NOT NULL,
  updated_at   BIGINT NOT NULL,
  removed_at   BIGINT
);

CREATE TABLE server_token_keys (
  organisation TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id           TEXT COLLATE "C" NOT NULL,
  certificate  TEXT COLLATE "C" NOT NULL,
  cell         BYTEA NOT NULL,
  created_at   BIGINT NOT NULL,
  used_at      BIGINT,
  PRIMARY KEY (organisation, id)
);

CREATE TABLE server_tokens (
  organisation     TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id               TEXT COLLATE "C" NOT NULL,
  name             TEXT COLLATE "C" NOT NULL,
  kind             TEXT COLLATE "C" NOT NULL,
  base_url         TEXT COLLATE "C",
  dep_name         TEXT COLLATE "C",
  cell             BYTEA NOT NULL,
  version          BIGINT NOT NULL,
  expires_at       BIGINT,
  server_uuid      TEXT COLLATE "C",
  server_name      TEXT COLLATE "C",
  org_name         TEXT COLLATE "C",
  problem          TEXT COLLATE "C",
  problem_at       BIGINT,
  mended_at        BIGINT,
  retry_at         BIGINT,
  listing          TEXT COLLATE "C" NOT NULL,
  cursor           TEXT COLLATE "C",
  listing_run      BIGINT NOT NULL,
  listed_at        BIGINT,
  whole_at         BIGINT,
  created_at       BIGINT NOT NULL,
  updated_at       BIGINT NOT NULL,
  removed_at       BIGINT,
  PRIMARY KEY (organisation, id)
);

CREATE UNIQUE INDEX server_tokens_live ON server_tokens (organisation, name) WHERE removed_at IS NULL;

CREATE TABLE listed_devices (
  organisation            TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  server_token            TEXT COLLATE "C" NOT NULL,
  serial                  TEXT COLLATE "C" NOT NULL,
  model                   TEXT COLLATE "C",
  description             TEXT COLLATE "C",
  color                   TEXT COLLATE "C",
  device_family           TEXT COLLATE "C",
  os                      TEXT COLLATE "C",
  asset_tag               TEXT COLLATE "C",
  profile_status          TEXT COLLATE "C",
  assigned_by             TEXT COLLATE "C",
  assigned_at             BIGINT,
  imei                    TEXT COLLATE "C" NOT NULL,
  meid                    TEXT COLLATE "C" NOT NULL,
  eid                     TEXT COLLATE "C",
  is_replacement          BIGINT,
  released_by_replacement BIGINT,
  migration_deadline      BIGINT,
  first_at                BIGINT NOT NULL,
  last_at                 BIGINT NOT NULL,
  listing_run             BIGINT NOT NULL,
  gone_at                 BIGINT,
  PRIMARY KEY (organisation, server_token, serial)
);

CREATE INDEX listed_devices_of_device ON listed_devices (organisation, serial, server_token);

ALTER TABLE policies ADD COLUMN lock_on_listing TEXT COLLATE "C" NOT NULL DEFAULT 'off';
ALTER TABLE policies ADD COLUMN listing_paused_at BIGINT;
