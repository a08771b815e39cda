-- Replicas: each knows whether a commit whose answer it never got was kept; and a copy of a database knows that it is one.
-- Every column is described in docs/DATA_MODEL.md.

ALTER TABLE audit_writers ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN copied_at INTEGER;

-- The processes on this database, and when each was last heard of.
CREATE TABLE replicas (
  id             TEXT NOT NULL PRIMARY KEY,
  node           TEXT NOT NULL,
  host           TEXT NOT NULL,
  version        TEXT NOT NULL,
  schema_version INTEGER NOT NULL,
  roles          TEXT NOT NULL,
  started_at     INTEGER NOT NULL,
  seen_at        INTEGER NOT NULL,
  ended_at       INTEGER
) STRICT, WITHOUT ROWID;

-- What one process does for all, and which has it now.
CREATE TABLE duties (
  name         TEXT NOT NULL PRIMARY KEY,
  holder       TEXT NOT NULL,
  fence        INTEGER NOT NULL,
  leased_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
