-- Replicas: each knows whether a commit whose answer it never got was kept; and a copy of a database knows that it is one.
-- Every column is described in docs/DATA_MODEL.md.

ALTER TABLE audit_writers ADD COLUMN batch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN copied_at BIGINT;

-- The processes on this database, and when each was last heard of.
CREATE TABLE replicas (
  id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  node           TEXT COLLATE "C" NOT NULL,
  host           TEXT COLLATE "C" NOT NULL,
  version        TEXT COLLATE "C" NOT NULL,
  schema_version BIGINT NOT NULL,
  roles          TEXT COLLATE "C" NOT NULL,
  started_at     BIGINT NOT NULL,
  seen_at        BIGINT NOT NULL,
  ended_at       BIGINT
);

-- What one process does for all, and which has it now.
CREATE TABLE duties (
  name         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  holder       TEXT COLLATE "C" NOT NULL,
  fence        BIGINT NOT NULL,
  leased_until BIGINT NOT NULL
);
