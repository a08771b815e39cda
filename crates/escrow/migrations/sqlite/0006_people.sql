-- People: how they prove who they are, what they may do where, and their sessions.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE people (
  principal      TEXT NOT NULL PRIMARY KEY REFERENCES principals (id),
  login          TEXT NOT NULL UNIQUE,
  email          TEXT,
  invitation     TEXT UNIQUE,
  invited_until  INTEGER,
  password       TEXT,
  password_at    INTEGER,
  totp           BLOB,
  totp_at        INTEGER,
  totp_step      INTEGER,
  totp_pending   BLOB,
  created_at     INTEGER NOT NULL,
  created_by     TEXT NOT NULL,
  signed_in_at   INTEGER,
  disabled_at    INTEGER,
  disabled_by    TEXT
) STRICT, WITHOUT ROWID;

-- The organisation `*` stands for all of them, those yet to be made included.
CREATE TABLE grants (
  organisation TEXT NOT NULL,
  principal    TEXT NOT NULL REFERENCES people (principal),
  role         TEXT NOT NULL,
  granted_at   INTEGER NOT NULL,
  granted_by   TEXT NOT NULL,
  PRIMARY KEY (organisation, principal, role)
) STRICT, WITHOUT ROWID;

CREATE INDEX grants_of_person ON grants (principal, organisation);

CREATE TABLE sessions (
  id         TEXT NOT NULL PRIMARY KEY,
  principal  TEXT NOT NULL REFERENCES people (principal),
  hash       TEXT NOT NULL UNIQUE,
  proved_by  TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  seen_at    INTEGER NOT NULL,
  idle_until INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  address    TEXT,
  agent      TEXT,
  ended_at   INTEGER,
  ended_by   TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_of_person ON sessions (principal, id);

-- One row a name that was tried, whether it is somebody's or not, and one an address; both only as marks.
CREATE TABLE sign_in_failures (
  mark     TEXT NOT NULL PRIMARY KEY,
  failures INTEGER NOT NULL,
  last_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The person whose token it is: it may no more than they may, and ends with them.
ALTER TABLE tokens ADD COLUMN owner TEXT REFERENCES people (principal);
