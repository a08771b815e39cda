-- Devices, what is known of them, and the codes that open their locks.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE devices (
  organisation     TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  serial           TEXT COLLATE "C" NOT NULL,
  product_type     TEXT COLLATE "C",
  product_source   TEXT COLLATE "C",
  imei             TEXT COLLATE "C",
  imei2            TEXT COLLATE "C",
  meid             TEXT COLLATE "C",
  cellular_source  TEXT COLLATE "C",
  model_name       TEXT COLLATE "C",
  device_name      TEXT COLLATE "C",
  os_version       TEXT COLLATE "C",
  device_code      TEXT COLLATE "C",
  server_code      TEXT COLLATE "C",
  connection       TEXT COLLATE "C",
  coverage         TEXT COLLATE "C" NOT NULL,
  coverage_reason  TEXT COLLATE "C",
  window_evidence  TEXT COLLATE "C",
  window_opened_at BIGINT,
  window_closes_at BIGINT,
  suspect          TEXT COLLATE "C",
  created_at       BIGINT NOT NULL,
  seen_at          BIGINT NOT NULL,
  PRIMARY KEY (organisation, serial)
);

CREATE INDEX devices_by_coverage ON devices (organisation, coverage, window_closes_at, serial);
CREATE INDEX devices_by_connection ON devices (organisation, connection, serial);
CREATE INDEX devices_by_product ON devices (organisation, product_type, serial);
CREATE INDEX devices_by_serial ON devices (serial, organisation);

CREATE TABLE coverage (
  organisation TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  state        TEXT COLLATE "C" NOT NULL,
  devices      BIGINT NOT NULL,
  PRIMARY KEY (organisation, state)
);

CREATE TABLE device_terms (
  organisation TEXT COLLATE "C" NOT NULL,
  term         TEXT COLLATE "C" NOT NULL,
  serial       TEXT COLLATE "C" NOT NULL,
  source       TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (organisation, term, serial, source)
);

CREATE INDEX device_terms_of_device ON device_terms (organisation, serial, source);

CREATE TABLE epochs (
  organisation     TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id               TEXT COLLATE "C" NOT NULL,
  connection       TEXT COLLATE "C" NOT NULL,
  enrollment       TEXT COLLATE "C" NOT NULL,
  kind             TEXT COLLATE "C" NOT NULL,
  serial           TEXT COLLATE "C",
  udid             TEXT COLLATE "C",
  topic            TEXT COLLATE "C",
  opened_by        TEXT COLLATE "C" NOT NULL,
  opened_at        BIGINT NOT NULL,
  event_at         BIGINT NOT NULL,
  authenticated_at BIGINT,
  enrolled_at      BIGINT,
  state            TEXT COLLATE "C" NOT NULL,
  state_reason     TEXT COLLATE "C",
  closed_at        BIGINT,
  code             TEXT COLLATE "C",
  code_at          BIGINT,
  facts            TEXT COLLATE "C" NOT NULL,
  last_asked_at    BIGINT,
  triggered_at     BIGINT,
  answers_lost_at  BIGINT,
  next_ask_at      BIGINT,
  seen_at          BIGINT NOT NULL,
  PRIMARY KEY (organisation, id)
);

CREATE UNIQUE INDEX epochs_live ON epochs (organisation, connection, enrollment) WHERE closed_at IS NULL;
CREATE INDEX epochs_to_ask ON epochs (next_ask_at) WHERE next_ask_at IS NOT NULL AND closed_at IS NULL;
CREATE INDEX epochs_disputed ON epochs (organisation, serial) WHERE state = 'disputed' AND closed_at IS NULL;
CREATE INDEX epochs_of_enrollment ON epochs (organisation, connection, enrollment, id);
CREATE INDEX epochs_of_device ON epochs (organisation, serial, id);

CREATE TABLE codes (
  organisation    TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id              TEXT COLLATE "C" NOT NULL,
  serial          TEXT COLLATE "C" NOT NULL,
  kind            TEXT COLLATE "C" NOT NULL,
  origin          TEXT COLLATE "C" NOT NULL,
  shape           TEXT COLLATE "C" NOT NULL,
  fingerprint     TEXT COLLATE "C" NOT NULL,
  fingerprint_key TEXT COLLATE "C" NOT NULL,
  exact           TEXT COLLATE "C" NOT NULL,
  cell            BYTEA NOT NULL,
  reported_exact  TEXT COLLATE "C",
  reported_cell   BYTEA,
  topic           TEXT COLLATE "C",
  lock_state      TEXT COLLATE "C" NOT NULL DEFAULT 'none',
  doubt           TEXT COLLATE "C",
  note            TEXT COLLATE "C",
  revealed_at     BIGINT,
  revealed_by     TEXT COLLATE "C",
  used_at         BIGINT,
  created_at      BIGINT NOT NULL,
  seen_at         BIGINT NOT NULL,
  PRIMARY KEY (organisation, id)
);

CREATE UNIQUE INDEX codes_of_device ON codes (organisation, serial, fingerprint);

CREATE TABLE code_observations (
  organisation TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id           TEXT COLLATE "C" NOT NULL,
  serial       TEXT COLLATE "C" NOT NULL,
  code         TEXT COLLATE "C" NOT NULL,
  standing     TEXT COLLATE "C" NOT NULL,
  epoch        TEXT COLLATE "C",
  command      TEXT COLLATE "C",
  event_at     BIGINT NOT NULL,
  recorded_at  BIGINT NOT NULL,
  PRIMARY KEY (organisation, id)
);

CREATE INDEX code_observations_of_device ON code_observations (organisation, serial, id);

CREATE TABLE held_answers (
  organisation TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id           TEXT COLLATE "C" NOT NULL,
  epoch        TEXT COLLATE "C" NOT NULL,
  command      TEXT COLLATE "C",
  standing     TEXT COLLATE "C" NOT NULL,
  cell         BYTEA NOT NULL,
  event_at     BIGINT NOT NULL,
  recorded_at  BIGINT NOT NULL,
  PRIMARY KEY (organisation, id)
);

CREATE INDEX held_answers_of_epoch ON held_answers (organisation, epoch, id);

CREATE TABLE commands (
  organisation TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id           TEXT COLLATE "C" NOT NULL,
  epoch        TEXT COLLATE "C" NOT NULL,
  connection   TEXT COLLATE "C" NOT NULL,
  enrollment   TEXT COLLATE "C" NOT NULL,
  type         TEXT COLLATE "C" NOT NULL,
  argument     TEXT COLLATE "C",
  cause        TEXT COLLATE "C" NOT NULL,
  state        TEXT COLLATE "C" NOT NULL,
  reason       TEXT COLLATE "C",
  due_at       BIGINT NOT NULL,
  tries        BIGINT NOT NULL,
  leased_until BIGINT,
  created_at   BIGINT NOT NULL,
  queued_at    BIGINT,
  answered_at  BIGINT,
  PRIMARY KEY (organisation, id)
);

CREATE UNIQUE INDEX commands_pending ON commands (organisation, epoch, type)
  WHERE state IN ('planned', 'queued', 'not_now');
CREATE INDEX commands_due ON commands (state, due_at);
CREATE INDEX commands_of_epoch ON commands (organisation, epoch, type, id);

CREATE TABLE received_events (
  organisation TEXT COLLATE "C" NOT NULL,
  connection   TEXT COLLATE "C" NOT NULL,
  event_at     BIGINT NOT NULL,
  digest       TEXT COLLATE "C" NOT NULL,
  received_at  BIGINT NOT NULL,
  PRIMARY KEY (organisation, connection, event_at, digest)
);

CREATE INDEX received_events_by_age ON received_events (received_at);

