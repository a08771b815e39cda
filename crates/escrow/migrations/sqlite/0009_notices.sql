-- Notices: what people should be told, where it goes, and whether it got there.
-- Every column is described in docs/DATA_MODEL.md.

-- The organisation `*` stands for all of them.
CREATE TABLE notice_channels (
  organisation   TEXT NOT NULL,
  id             TEXT NOT NULL,
  kind           TEXT NOT NULL,
  name           TEXT NOT NULL,
  address        TEXT NOT NULL,
  target         BLOB,
  mail           TEXT,
  secret         BLOB,
  previous       BLOB,
  created_at     INTEGER NOT NULL,
  created_by     TEXT NOT NULL,
  removed_at     INTEGER,
  sent_at        INTEGER,
  failing_since  INTEGER,
  failure        TEXT,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE notices (
  organisation TEXT NOT NULL,
  id           TEXT NOT NULL,
  kind         TEXT NOT NULL,
  text         TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE notice_deliveries (
  organisation TEXT NOT NULL,
  notice       TEXT NOT NULL,
  channel      TEXT NOT NULL,
  recipient    TEXT NOT NULL,
  state        TEXT NOT NULL,
  attempts     INTEGER NOT NULL,
  due_at       INTEGER NOT NULL,
  leased_until INTEGER,
  failure      TEXT,
  ended_at     INTEGER,
  PRIMARY KEY (organisation, notice, channel, recipient)
) STRICT, WITHOUT ROWID;

CREATE INDEX notice_deliveries_due ON notice_deliveries (due_at) WHERE state = 'queued';
