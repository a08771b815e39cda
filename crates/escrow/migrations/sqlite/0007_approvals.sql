-- Approvals: what needs other people, who asked for what, who said yes or no; emergencies; how much one may do in an hour.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE approval_policies (
  organisation  TEXT NOT NULL REFERENCES organisations (id),
  action        TEXT NOT NULL,
  people        INTEGER NOT NULL,
  self_approval INTEGER NOT NULL,
  ask_within    INTEGER NOT NULL,
  use_within    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  PRIMARY KEY (organisation, action)
) STRICT, WITHOUT ROWID;

-- The organisation `*` stands for what concerns all of them.
CREATE TABLE approvals (
  organisation TEXT NOT NULL,
  id           TEXT NOT NULL,
  action       TEXT NOT NULL,
  governed_by  TEXT NOT NULL,
  targets      TEXT NOT NULL,
  digest       TEXT NOT NULL,
  reason       TEXT NOT NULL,
  human        TEXT NOT NULL,
  requested_by TEXT NOT NULL,
  state        TEXT NOT NULL,
  asked_at     INTEGER NOT NULL,
  ask_until    INTEGER NOT NULL,
  decided_at   INTEGER,
  use_until    INTEGER,
  used_at      INTEGER,
  used_by      TEXT,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX approvals_by_state ON approvals (organisation, state, id);

CREATE TABLE approval_votes (
  organisation TEXT NOT NULL,
  approval     TEXT NOT NULL,
  human        TEXT NOT NULL REFERENCES people (principal),
  name         TEXT NOT NULL,
  vote         TEXT NOT NULL,
  comment      TEXT,
  at           INTEGER NOT NULL,
  PRIMARY KEY (organisation, approval, human),
  FOREIGN KEY (organisation, approval) REFERENCES approvals (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE glass_broken (
  organisation    TEXT NOT NULL,
  id              TEXT NOT NULL,
  action          TEXT NOT NULL,
  targets         TEXT NOT NULL,
  reason          TEXT NOT NULL,
  human           TEXT NOT NULL REFERENCES people (principal),
  name            TEXT NOT NULL,
  at              INTEGER NOT NULL,
  acknowledged_at INTEGER,
  acknowledged_by TEXT,
  PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

-- What somebody did without another's approval within the last hour.
CREATE TABLE quota_uses (
  organisation TEXT NOT NULL,
  who          TEXT NOT NULL,
  action       TEXT NOT NULL,
  id           TEXT NOT NULL,
  at           INTEGER NOT NULL,
  devices      INTEGER NOT NULL,
  PRIMARY KEY (organisation, who, action, id)
) STRICT, WITHOUT ROWID;

-- Null is as many as the program has by itself.
ALTER TABLE policies ADD COLUMN reveals_an_hour INTEGER;
ALTER TABLE policies ADD COLUMN unlocks_an_hour INTEGER;
