-- Notices: what people should be told, where it goes, and whether it got there.
-- Every column is described in docs/DATA_MODEL.md.

-- The organisation `*` stands for all of them.
CREATE TABLE notice_channels (
  organisation   TEXT COLLATE "C" NOT NULL,
  id             TEXT COLLATE "C" NOT NULL,
  kind           TEXT COLLATE "C" NOT NULL,
  name           TEXT COLLATE "C" NOT NULL,
  address        TEXT COLLATE "C" NOT NULL,
  target         BYTEA,
  mail           TEXT COLLATE "C",
  secret         BYTEA,
  previous       BYTEA,
  created_at     BIGINT NOT NULL,
  created_by     TEXT COLLATE "C" NOT NULL,
  removed_at     BIGINT,
  sent_at        BIGINT,
  failing_since  BIGINT,
  failure        TEXT COLLATE "C",
  PRIMARY KEY (organisation, id)
);

CREATE TABLE notices (
  organisation TEXT COLLATE "C" NOT NULL,
  id           TEXT COLLATE "C" NOT NULL,
  kind         TEXT COLLATE "C" NOT NULL,
  text         TEXT COLLATE "C" NOT NULL,
  created_at   BIGINT NOT NULL,
  PRIMARY KEY (organisation, id)
);

CREATE TABLE notice_deliveries (
  organisation TEXT COLLATE "C" NOT NULL,
  notice       TEXT COLLATE "C" NOT NULL,
  channel      TEXT COLLATE "C" NOT NULL,
  recipient    TEXT COLLATE "C" NOT NULL,
  state        TEXT COLLATE "C" NOT NULL,
  attempts     BIGINT NOT NULL,
  due_at       BIGINT NOT NULL,
  leased_until BIGINT,
  failure      TEXT COLLATE "C",
  ended_at     BIGINT,
  PRIMARY KEY (organisation, notice, channel, recipient)
);

CREATE INDEX notice_deliveries_due ON notice_deliveries (due_at) WHERE state = 'queued';
