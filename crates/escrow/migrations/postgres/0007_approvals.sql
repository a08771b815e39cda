-- Approvals: what needs other people, who asked for what, who said yes or no; emergencies; how much one may do in an hour.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE approval_policies (
  organisation  TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  action        TEXT COLLATE "C" NOT NULL,
  people        BIGINT NOT NULL,
  self_approval BIGINT NOT NULL,
  ask_within    BIGINT NOT NULL,
  use_within    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  PRIMARY KEY (organisation, action)
);

-- The organisation `*` stands for what concerns all of them.
CREATE TABLE approvals (
  organisation TEXT COLLATE "C" NOT NULL,
  id           TEXT COLLATE "C" NOT NULL,
  action       TEXT COLLATE "C" NOT NULL,
  governed_by  TEXT COLLATE "C" NOT NULL,
  targets      TEXT COLLATE "C" NOT NULL,
  digest       TEXT COLLATE "C" NOT NULL,
  reason       TEXT COLLATE "C" NOT NULL,
  human        TEXT COLLATE "C" NOT NULL,
  requested_by TEXT COLLATE "C" NOT NULL,
  state        TEXT COLLATE "C" NOT NULL,
  asked_at     BIGINT NOT NULL,
  ask_until    BIGINT NOT NULL,
  decided_at   BIGINT,
  use_until    BIGINT,
  used_at      BIGINT,
  used_by      TEXT COLLATE "C",
  PRIMARY KEY (organisation, id)
);

CREATE INDEX approvals_by_state ON approvals (organisation, state, id);

CREATE TABLE approval_votes (
  organisation TEXT COLLATE "C" NOT NULL,
  approval     TEXT COLLATE "C" NOT NULL,
  human        TEXT COLLATE "C" NOT NULL REFERENCES people (principal),
  name         TEXT COLLATE "C" NOT NULL,
  vote         TEXT COLLATE "C" NOT NULL,
  comment      TEXT COLLATE "C",
  at           BIGINT NOT NULL,
  PRIMARY KEY (organisation, approval, human),
  FOREIGN KEY (organisation, approval) REFERENCES approvals (organisation, id)
);

CREATE TABLE glass_broken (
  organisation    TEXT COLLATE "C" NOT NULL,
  id              TEXT COLLATE "C" NOT NULL,
  action          TEXT COLLATE "C" NOT NULL,
  targets         TEXT COLLATE "C" NOT NULL,
  reason          TEXT COLLATE "C" NOT NULL,
  human           TEXT COLLATE "C" NOT NULL REFERENCES people (principal),
  name            TEXT COLLATE "C" NOT NULL,
  at              BIGINT NOT NULL,
  acknowledged_at BIGINT,
  acknowledged_by TEXT COLLATE "C",
  PRIMARY KEY (organisation, id)
);

-- What somebody did without another's approval within the last hour.
CREATE TABLE quota_uses (
  organisation TEXT COLLATE "C" NOT NULL,
  who          TEXT COLLATE "C" NOT NULL,
  action       TEXT COLLATE "C" NOT NULL,
  id           TEXT COLLATE "C" NOT NULL,
  at           BIGINT NOT NULL,
  devices      BIGINT NOT NULL,
  PRIMARY KEY (organisation, who, action, id)
);

-- Null is as many as the program has by itself.
ALTER TABLE policies ADD COLUMN reveals_an_hour BIGINT;
ALTER TABLE policies ADD COLUMN unlocks_an_hour BIGINT;
