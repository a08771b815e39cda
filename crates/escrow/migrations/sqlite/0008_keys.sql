-- Keys that are exchanged while the vault is in use, and the backups that still need them.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE key_rotations (
  id          TEXT NOT NULL PRIMARY KEY,
  started_at  INTEGER NOT NULL,
  started_by  TEXT NOT NULL,
  pass        INTEGER NOT NULL,
  stage       INTEGER NOT NULL,
  place       TEXT NOT NULL,
  row_id      TEXT NOT NULL,
  resealed    INTEGER NOT NULL,
  in_pass     INTEGER NOT NULL,
  damaged     INTEGER NOT NULL,
  finished_at INTEGER
) STRICT, WITHOUT ROWID;

-- What a backup holds does not open without the data keys of its time.
CREATE TABLE backups (
  id           TEXT NOT NULL PRIMARY KEY,
  made_at      INTEGER NOT NULL,
  name         TEXT NOT NULL,
  keys         TEXT NOT NULL,
  digest       TEXT NOT NULL,
  expires_at   INTEGER,
  forgotten_at INTEGER
) STRICT, WITHOUT ROWID;

ALTER TABLE data_keys ADD COLUMN destroyed_at INTEGER;
