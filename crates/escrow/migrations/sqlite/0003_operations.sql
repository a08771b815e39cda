-- Wishes to change a lock, the calls made for them, and the keys that make asking twice harmless.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE operations (
  organisation  TEXT NOT NULL REFERENCES organisations (id),
  id            TEXT NOT NULL,
  kind          TEXT NOT NULL,
  serial        TEXT NOT NULL,
  state         TEXT NOT NULL,
  details       TEXT NOT NULL,
  reason        TEXT NOT NULL,
  requester     TEXT NOT NULL,
  principal     TEXT NOT NULL,
  requested_by  TEXT NOT NULL,
  insists       INTEGER NOT NULL,
  urgent        INTEGER NOT NULL,
  approval      TEXT,
  requested_at  INTEGER NOT NULL,
  resumed_at    INTEGER,
  deadline      INTEGER NOT NULL,
  cancelled_by  TEXT,
  restored_at   INTEGER,
  ended_at      INTEGER,
  next_at       INTEGER NOT NULL,
  lease_owner   TEXT,
  lease_number  INTEGER NOT NULL,
  lease_until   INTEGER,
  double_sent   INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

-- One live operation a serial number, whatever organisation asks (R16).
CREATE UNIQUE INDEX operations_live ON operations (serial) WHERE ended_at IS NULL;
CREATE INDEX operations_due ON operations (urgent, next_at, id) WHERE ended_at IS NULL;
CREATE INDEX operations_leased ON operations (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX operations_of_device ON operations (organisation, serial, id);

CREATE TABLE attempts (
  organisation    TEXT NOT NULL,
  id              TEXT NOT NULL,
  operation       TEXT NOT NULL,
  serial          TEXT NOT NULL,
  position        INTEGER NOT NULL,
  code            TEXT NOT NULL,
  code_kind       TEXT NOT NULL,
  code_current    INTEGER NOT NULL,
  code_seen_at    INTEGER NOT NULL,
  form            TEXT NOT NULL,
  parses          INTEGER NOT NULL,
  uncapped        INTEGER NOT NULL,
  identity        TEXT NOT NULL,
  identity_source TEXT NOT NULL,
  swapped         INTEGER NOT NULL,
  credential      TEXT NOT NULL,
  topic           TEXT NOT NULL,
  recipient       TEXT NOT NULL,
  lease_number    INTEGER NOT NULL,
  began_at        INTEGER NOT NULL,
  ended_at        INTEGER,
  lost_at         INTEGER,
  outcome         TEXT,
  status          INTEGER,
  retry_after     INTEGER,
  delegate_failed INTEGER NOT NULL,
  diagnostic      TEXT,
  late_outcome    TEXT,
  late_at         INTEGER,
  overlaps        TEXT,
  PRIMARY KEY (organisation, id),
  FOREIGN KEY (organisation, operation) REFERENCES operations (organisation, id)
) STRICT, WITHOUT ROWID;

-- One call in flight a serial number: the database itself refuses a second (R16).
CREATE UNIQUE INDEX attempts_in_flight ON attempts (serial) WHERE ended_at IS NULL AND lost_at IS NULL;
CREATE INDEX attempts_of_operation ON attempts (organisation, operation, id);
CREATE INDEX attempts_of_device ON attempts (serial, began_at);

CREATE TABLE idempotency_keys (
  organisation TEXT NOT NULL,
  principal    TEXT NOT NULL,
  route        TEXT NOT NULL,
  key          TEXT NOT NULL,
  body         TEXT NOT NULL,
  operation    TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  PRIMARY KEY (organisation, principal, route, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
