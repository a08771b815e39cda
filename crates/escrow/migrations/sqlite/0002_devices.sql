-- Devices, what is known of them, and the codes that open their locks.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE devices (
  organisation     TEXT NOT NULL REFERENCES organisations (id),
  serial           TEXT NOT NULL,
  product_type     TEXT,
  product_source   TEXT,
  imei             TEXT,
  imei2            TEXT,
  meid             TEXT,
  cellular_source  TEXT,
  model_name       TEXT,
  device_name      TEXT,
  os_version       TEXT,
  device_code      TEXT,
  server_code      TEXT,
  connection       TEXT,
  coverage         TEXT NOT NULL,
  coverage_reason  TEXT,
  window_evidence  TEXT,
  window_opened_at INTEGER,
  window_closes_at INTEGER,
  suspect          TEXT,
  created_at       INTEGER NOT NULL,
  seen_at          INTEGER NOT NULL,
  PRIMARY KEY (organisation, serial)
) STRICT, WITHOUT ROWID;

CREATE INDEX devices_by_coverage ON devices (organisation, coverage, window_closes_at, serial);
CREATE INDEX devices_by_connection ON devices (organisation, connection, serial);
CREATE INDEX devices_by_product ON devices (organisation, product_type, serial);
CREATE INDEX devices_by_serial ON devices (serial, organisation);

CREATE TABLE coverage (
  organisation TEXT NOT NULL REFERENCES organisations (id),
  state        TEXT NOT NULL,
  devices      INTEGER NOT NULL,
  PRIMARY KEY (organisation, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_terms (
  organisation TEXT NOT NULL,
  term         TEXT NOT NULL,
  serial       TEXT NOT NULL,
  source       TEXT NOT NULL,
  PRIMARY KEY (organisation, term, serial, source)
) STRICT, WITHOUT ROWID;

CREATE INDEX device_terms_of_device ON device_terms (organisation, serial, source);

CREATE TABLE epochs (
  organisation     TEXT NOT NULL REFERENCES organisations (id),
  id               TEXT NOT NULL,
  connection       TEXT NOT NULL,
  enrollment       TEXT NOT NULL,
  kind             TEXT NOT NULL,
  serial           TEXT,
  udid             TEXT,
  topic            TEXT,
  opened_by        TEXT NOT NULL,
  opened_at        INTEGER NOT NULL,
  event_at         INTEGER NOT NULL,
  authenticated_at INTEGER,
  enrolled_at      INTEGER,
  state            TEXT NOT NULL,
  state_reason     TEXT,
  closed_at        INTEGER,
  code             TEXT,
  code_at          INTEGER,
  facts            TEXT NOT NULL,
  last_asked_at    INTEGER,
  triggered_at     INTEGER,
  answers_lost_at  INTEGER,
  next_ask_at      INTEGER,
  seen_at          INTEGER NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX epochs_live ON epochs (organisation, connection, enrollment) WHERE closed_at IS NULL;
CREATE INDEX epochs_to_ask ON epochs (next_ask_at) WHERE next_ask_at IS NOT NULL AND closed_at IS NULL;
CREATE INDEX epochs_disputed ON epochs (organisation, serial) WHERE state = 'disputed' AND closed_at IS NULL;
CREATE INDEX epochs_of_enrollment ON epochs (organisation, connection, enrollment, id);
CREATE INDEX epochs_of_device ON epochs (organisation, serial, id);

CREATE TABLE codes (
  organisation    TEXT NOT NULL REFERENCES organisations (id),
  id              TEXT NOT NULL,
  serial          TEXT NOT NULL,
  kind            TEXT NOT NULL,
  origin          TEXT NOT NULL,
  shape           TEXT NOT NULL,
  fingerprint     TEXT NOT NULL,
  fingerprint_key TEXT NOT NULL,
  exact           TEXT NOT NULL,
  cell            BLOB NOT NULL,
  reported_exact  TEXT,
  reported_cell   BLOB,
  topic           TEXT,
  lock_state      TEXT NOT NULL DEFAULT 'none',
  doubt           TEXT,
  note            TEXT,
  revealed_at     INTEGER,
  revealed_by     TEXT,
  used_at         INTEGER,
  created_at      INTEGER NOT NULL,
  seen_at         INTEGER NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX codes_of_device ON codes (organisation, serial, fingerprint);

CREATE TABLE code_observations (
  organisation TEXT NOT NULL REFERENCES organisations (id),
  id           TEXT NOT NULL,
  serial       TEXT NOT NULL,
  code         TEXT NOT NULL,
  standing     TEXT NOT NULL,
  epoch        TEXT,
  command      TEXT,
  event_at     INTEGER NOT NULL,
  recorded_at  INTEGER NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX code_observations_of_device ON code_observations (organisation, serial, id);

CREATE TABLE held_answers (
  organisation TEXT NOT NULL REFERENCES organisations (id),
  id           TEXT NOT NULL,
  epoch        TEXT NOT NULL,
  command      TEXT,
  standing     TEXT NOT NULL,
  cell         BLOB NOT NULL,
  event_at     INTEGER NOT NULL,
  recorded_at  INTEGER NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX held_answers_of_epoch ON held_answers (organisation, epoch, id);

CREATE TABLE commands (
  organisation TEXT NOT NULL REFERENCES organisations (id),
  id           TEXT NOT NULL,
  epoch        TEXT NOT NULL,
  connection   TEXT NOT NULL,
  enrollment   TEXT NOT NULL,
  type         TEXT NOT NULL,
  argument     TEXT,
  cause        TEXT NOT NULL,
  state        TEXT NOT NULL,
  reason       TEXT,
  due_at       INTEGER NOT NULL,
  tries        INTEGER NOT NULL,
  leased_until INTEGER,
  created_at   INTEGER NOT NULL,
  queued_at    INTEGER,
  answered_at  INTEGER,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX commands_pending ON commands (organisation, epoch, type)
  WHERE state IN ('planned', 'queued', 'not_now');
CREATE INDEX commands_due ON commands (state, due_at);
CREATE INDEX commands_of_epoch ON commands (organisation, epoch, type, id);

CREATE TABLE received_events (
  organisation TEXT NOT NULL,
  connection   TEXT NOT NULL,
  event_at     INTEGER NOT NULL,
  digest       TEXT NOT NULL,
  received_at  INTEGER NOT NULL,
  PRIMARY KEY (organisation, connection, event_at, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX received_events_by_age ON received_events (received_at);

