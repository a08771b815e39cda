-- Batches: one wish for many devices. Its lines are checked before anything runs, and enter the queue little by little.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE batches (
  organisation   TEXT NOT NULL REFERENCES organisations (id),
  id             TEXT NOT NULL,
  action         TEXT NOT NULL,
  state          TEXT NOT NULL,
  held_for       TEXT,
  reason         TEXT NOT NULL,
  requester      TEXT,
  message        TEXT,
  insists        INTEGER NOT NULL,
  created_by     TEXT NOT NULL,
  principal      TEXT NOT NULL,
  principal_kind TEXT NOT NULL,
  requested_by   TEXT NOT NULL,
  human          TEXT,
  token          TEXT,
  lines          INTEGER NOT NULL,
  created_at     INTEGER NOT NULL,
  started_at     INTEGER,
  ended_at       INTEGER,
  fed_at         INTEGER NOT NULL,
  counted_at     INTEGER,
  counted        INTEGER NOT NULL,
  before_at      INTEGER,
  counted_before INTEGER NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX batches_running ON batches (fed_at, id) WHERE state = 'running';

CREATE TABLE batch_lines (
  organisation TEXT NOT NULL,
  batch        TEXT NOT NULL,
  line         INTEGER NOT NULL,
  serial       TEXT,
  state        TEXT NOT NULL,
  operation    TEXT,
  PRIMARY KEY (organisation, batch, line),
  FOREIGN KEY (organisation, batch) REFERENCES batches (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX batch_lines_by_state ON batch_lines (organisation, batch, state, line);
CREATE INDEX batch_lines_of_device ON batch_lines (organisation, serial, batch) WHERE serial IS NOT NULL;

ALTER TABLE operations ADD COLUMN batch TEXT;
CREATE INDEX operations_of_batch ON operations (organisation, batch, state) WHERE batch IS NOT NULL;

-- How many codes were held, day by day.
CREATE TABLE coverage_days (
  organisation TEXT NOT NULL REFERENCES organisations (id),
  day          INTEGER NOT NULL,
  covered      INTEGER NOT NULL,
  missing      INTEGER NOT NULL,
  closed       INTEGER NOT NULL,
  exempt       INTEGER NOT NULL,
  PRIMARY KEY (organisation, day)
) STRICT, WITHOUT ROWID;

-- What needs a person, and what came of a week's unlocks.
CREATE INDEX operations_in_review ON operations (organisation, id) WHERE state = 'needs_review';
CREATE INDEX operations_ended ON operations (organisation, ended_at) WHERE ended_at IS NOT NULL;
