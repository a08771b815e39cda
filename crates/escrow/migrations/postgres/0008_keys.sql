-- Keys that are exchanged while the vault is in use, and the backups that still need them.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE key_rotations (
  id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  started_at  BIGINT NOT NULL,
  started_by  TEXT COLLATE "C" NOT NULL,
  pass        BIGINT NOT NULL,
  stage       BIGINT NOT NULL,
  place       TEXT COLLATE "C" NOT NULL,
  row_id      TEXT COLLATE "C" NOT NULL,
  resealed    BIGINT NOT NULL,
  in_pass     BIGINT NOT NULL,
  damaged     BIGINT NOT NULL,
  finished_at BIGINT
);

-- What a backup holds does not open without the data keys of its time.
CREATE TABLE backups (
  id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  made_at      BIGINT NOT NULL,
  name         TEXT COLLATE "C" NOT NULL,
  keys         TEXT COLLATE "C" NOT NULL,
  digest       TEXT COLLATE "C" NOT NULL,
  expires_at   BIGINT,
  forgotten_at BIGINT
);

ALTER TABLE data_keys ADD COLUMN destroyed_at BIGINT;
