-- People: how they prove who they are, what they may do where, and their sessions.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE people (
  principal      TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES principals (id),
  login          TEXT COLLATE "C" NOT NULL UNIQUE,
  email          TEXT COLLATE "C",
  invitation     TEXT COLLATE "C" UNIQUE,
  invited_until  BIGINT,
  password       TEXT COLLATE "C",
  password_at    BIGINT,
  totp           BYTEA,
  totp_at        BIGINT,
  totp_step      BIGINT,
  totp_pending   BYTEA,
  created_at     BIGINT NOT NULL,
  created_by     TEXT COLLATE "C" NOT NULL,
  signed_in_at   BIGINT,
  disabled_at    BIGINT,
  disabled_by    TEXT COLLATE "C"
);

-- The organisation `*` stands for all of them, those yet to be made included.
CREATE TABLE grants (
  organisation TEXT COLLATE "C" NOT NULL,
  principal    TEXT COLLATE "C" NOT NULL REFERENCES people (principal),
  role         TEXT COLLATE "C" NOT NULL,
  granted_at   BIGINT NOT NULL,
  granted_by   TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (organisation, principal, role)
);

CREATE INDEX grants_of_person ON grants (principal, organisation);

CREATE TABLE sessions (
  id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  principal  TEXT COLLATE "C" NOT NULL REFERENCES people (principal),
  hash       TEXT COLLATE "C" NOT NULL UNIQUE,
  proved_by  TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  seen_at    BIGINT NOT NULL,
  idle_until BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  address    TEXT COLLATE "C",
  agent      TEXT COLLATE "C",
  ended_at   BIGINT,
  ended_by   TEXT COLLATE "C"
);

CREATE INDEX sessions_of_person ON sessions (principal, id);

-- One row a name that was tried, whether it is somebody's or not, and one an address; both only as marks.
CREATE TABLE sign_in_failures (
  mark     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  failures BIGINT NOT NULL,
  last_at  BIGINT NOT NULL
);

-- The person whose token it is: it may no more than they may, and ends with them.
ALTER TABLE tokens ADD COLUMN owner TEXT COLLATE "C" REFERENCES people (principal);
