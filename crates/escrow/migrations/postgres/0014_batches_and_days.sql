-- Batches: one wish for many devices. Its lines are checked before anything runs, and enter the queue little by little.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE batches (
  organisation   TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  id             TEXT COLLATE "C" NOT NULL,
  action         TEXT COLLATE "C" NOT NULL,
  state          TEXT COLLATE "C" NOT NULL,
  held_for       TEXT COLLATE "C",
  reason         TEXT COLLATE "C" NOT NULL,
  requester      TEXT COLLATE "C",
  message        TEXT COLLATE "C",
  insists        BIGINT NOT NULL,
  created_by     TEXT COLLATE "C" NOT NULL,
  principal      TEXT COLLATE "C" NOT NULL,
  principal_kind TEXT COLLATE "C" NOT NULL,
  requested_by   TEXT COLLATE "C" NOT NULL,
  human          TEXT COLLATE "C",
  token          TEXT COLLATE "C",
  lines          BIGINT NOT NULL,
  created_at     BIGINT NOT NULL,
  started_at     BIGINT,
  ended_at       BIGINT,
  fed_at         BIGINT NOT NULL,
  counted_at     BIGINT,
  counted        BIGINT NOT NULL,
  before_at      BIGINT,
  counted_before BIGINT NOT NULL,
  PRIMARY KEY (organisation, id)
);

CREATE INDEX batches_running ON batches (fed_at, id) WHERE state = 'running';

CREATE TABLE batch_lines (
  organisation TEXT COLLATE "C" NOT NULL,
  batch        TEXT COLLATE "C" NOT NULL,
  line         BIGINT NOT NULL,
  serial       TEXT COLLATE "C",
  state        TEXT COLLATE "C" NOT NULL,
  operation    TEXT COLLATE "C",
  PRIMARY KEY (organisation, batch, line),
  FOREIGN KEY (organisation, batch) REFERENCES batches (organisation, id)
);

CREATE INDEX batch_lines_by_state ON batch_lines (organisation, batch, state, line);
CREATE INDEX batch_lines_of_device ON batch_lines (organisation, serial, batch) WHERE serial IS NOT NULL;

ALTER TABLE operations ADD COLUMN batch TEXT COLLATE "C";
CREATE INDEX operations_of_batch ON operations (organisation, batch, state) WHERE batch IS NOT NULL;

-- How many codes were held, day by day.
CREATE TABLE coverage_days (
  organisation TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  day          BIGINT NOT NULL,
  covered      BIGINT NOT NULL,
  missing      BIGINT NOT NULL,
  closed       BIGINT NOT NULL,
  exempt       BIGINT NOT NULL,
  PRIMARY KEY (organisation, day)
);

-- What needs a person, and what came of a week's unlocks.
CREATE INDEX operations_in_review ON operations (organisation, id) WHERE state = 'needs_review';
CREATE INDEX operations_ended ON operations (organisation, ended_at) WHERE ended_at IS NOT NULL;
