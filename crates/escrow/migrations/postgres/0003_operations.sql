-- Wishes to change a lock, the calls made for them, and the keys that make asking twice harmless.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE operations (
  organisation  TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id            TEXT COLLATE "C" NOT NULL,
  kind          TEXT COLLATE "C" NOT NULL,
  serial        TEXT COLLATE "C" NOT NULL,
  state         TEXT COLLATE "C" NOT NULL,
  details       TEXT COLLATE "C" NOT NULL,
  reason        TEXT COLLATE "C" NOT NULL,
  requester     TEXT COLLATE "C" NOT NULL,
  principal     TEXT COLLATE "C" NOT NULL,
  requested_by  TEXT COLLATE "C" NOT NULL,
  insists       BIGINT NOT NULL,
  urgent        BIGINT NOT NULL,
  approval      TEXT COLLATE "C",
  requested_at  BIGINT NOT NULL,
  resumed_at    BIGINT,
  deadline      BIGINT NOT NULL,
  cancelled_by  TEXT COLLATE "C",
  restored_at   BIGINT,
  ended_at      BIGINT,
  next_at       BIGINT NOT NULL,
  lease_owner   TEXT COLLATE "C",
  lease_number  BIGINT NOT NULL,
  lease_until   BIGINT,
  double_sent   BIGINT NOT NULL,
  version       BIGINT NOT NULL,
  PRIMARY KEY (organisation, id)
);

-- One live operation a serial number, whatever organisation asks (R16).
CREATE UNIQUE INDEX operations_live ON operations (serial) WHERE ended_at IS NULL;
CREATE INDEX operations_due ON operations (urgent, next_at, id) WHERE ended_at IS NULL;
CREATE INDEX operations_leased ON operations (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX operations_of_device ON operations (organisation, serial, id);

CREATE TABLE attempts (
  organisation    TEXT COLLATE "C" NOT NULL,
  id              TEXT COLLATE "C" NOT NULL,
  operation       TEXT COLLATE "C" NOT NULL,
  serial          TEXT COLLATE "C" NOT NULL,
  position        BIGINT NOT NULL,
  code            TEXT COLLATE "C" NOT NULL,
  code_kind       TEXT COLLATE "C" NOT NULL,
  code_current    BIGINT NOT NULL,
  code_seen_at    BIGINT NOT NULL,
  form            TEXT COLLATE "C" NOT NULL,
  parses          BIGINT NOT NULL,
  uncapped        BIGINT NOT NULL,
  identity        TEXT COLLATE "C" NOT NULL,
  identity_source TEXT COLLATE "C" NOT NULL,
  swapped         BIGINT NOT NULL,
  credential      TEXT COLLATE "C" NOT NULL,
  topic           TEXT COLLATE "C" NOT NULL,
  recipient       TEXT COLLATE "C" NOT NULL,
  lease_number    BIGINT NOT NULL,
  began_at        BIGINT NOT NULL,
  ended_at        BIGINT,
  lost_at         BIGINT,
  outcome         TEXT COLLATE "C",
  status          BIGINT,
  retry_after     BIGINT,
  delegate_failed BIGINT NOT NULL,
  diagnostic      TEXT COLLATE "C",
  late_outcome    TEXT COLLATE "C",
  late_at         BIGINT,
  "overlaps"      TEXT COLLATE "C",
  PRIMARY KEY (organisation, id),
  FOREIGN KEY (organisation, operation) REFERENCES operations (organisation, id)
);

-- One call in flight a serial number: the database itself refuses a second (R16).
CREATE UNIQUE INDEX attempts_in_flight ON attempts (serial) WHERE ended_at IS NULL AND lost_at IS NULL;
CREATE INDEX attempts_of_operation ON attempts (organisation, operation, id);
CREATE INDEX attempts_of_device ON attempts (serial, began_at);

CREATE TABLE idempotency_keys (
  organisation TEXT COLLATE "C" NOT NULL,
  principal    TEXT COLLATE "C" NOT NULL,
  route        TEXT COLLATE "C" NOT NULL,
  key          TEXT COLLATE "C" NOT NULL,
  body         TEXT COLLATE "C" NOT NULL,
  operation    TEXT COLLATE "C" NOT NULL,
  created_at   BIGINT NOT NULL,
  PRIMARY KEY (organisation, principal, route, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
