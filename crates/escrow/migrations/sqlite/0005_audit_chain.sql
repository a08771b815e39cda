-- The audit record becomes tamper-evident: counters of its writers, a chain over its rows, checkpoints of the chain.
-- Every column is described in docs/DATA_MODEL.md.

-- Null in rows of before.
ALTER TABLE audit ADD COLUMN writer TEXT;
ALTER TABLE audit ADD COLUMN counter INTEGER;

-- A writer writes for every organisation, and its counter runs through all of them.
CREATE UNIQUE INDEX audit_of_writer ON audit (writer, counter) WHERE writer IS NOT NULL;
CREATE INDEX audit_of_before ON audit (id, organisation) WHERE writer IS NULL;

CREATE TABLE audit_writers (
  id   TEXT NOT NULL PRIMARY KEY,
  next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_chain (
  position     INTEGER PRIMARY KEY,
  organisation TEXT NOT NULL,
  audit_row    TEXT NOT NULL,
  writer       TEXT NOT NULL,
  counter      INTEGER NOT NULL,
  link         TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX audit_chain_of_row ON audit_chain (organisation, audit_row);
CREATE UNIQUE INDEX audit_chain_of_writer ON audit_chain (writer, counter);

CREATE TABLE audit_sealer (
  id           INTEGER PRIMARY KEY CHECK (id = 1),
  holder       TEXT,
  fence        INTEGER NOT NULL,
  leased_until INTEGER NOT NULL,
  position     INTEGER NOT NULL,
  link         TEXT NOT NULL,
  checkpoints  INTEGER NOT NULL
) STRICT;

INSERT INTO audit_sealer (id, holder, fence, leased_until, position, link, checkpoints)
VALUES (1, NULL, 0, 0, 0, '0000000000000000000000000000000000000000000000000000000000000000', 0);

CREATE TABLE audit_checkpoints (
  number    INTEGER PRIMARY KEY,
  position  INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  text      TEXT NOT NULL,
  signature TEXT NOT NULL
) STRICT;

CREATE TABLE audit_horizons (
  position  INTEGER PRIMARY KEY,
  at        INTEGER NOT NULL,
  text      TEXT NOT NULL,
  signature TEXT NOT NULL
) STRICT;

CREATE TABLE audit_outlets (
  name          TEXT NOT NULL PRIMARY KEY,
  position      INTEGER NOT NULL,
  sent_at       INTEGER,
  failing_since INTEGER,
  failure       TEXT
) STRICT, WITHOUT ROWID;

-- Rows may go only when a signed horizon stands for them.
DROP TRIGGER audit_is_never_deleted;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
WHEN NOT EXISTS (
  SELECT 1 FROM audit_chain JOIN audit_horizons ON audit_chain.position <= audit_horizons.position
  WHERE audit_chain.organisation = OLD.organisation AND audit_chain.audit_row = OLD.id
)
BEGIN SELECT RAISE(ABORT, 'an audit row is never deleted'); END;

CREATE TRIGGER audit_chain_is_never_changed BEFORE UPDATE ON audit_chain
BEGIN SELECT RAISE(ABORT, 'a link of the audit record is never changed'); END;
CREATE TRIGGER audit_chain_is_never_deleted BEFORE DELETE ON audit_chain
WHEN NOT EXISTS (SELECT 1 FROM audit_horizons WHERE position >= OLD.position)
BEGIN SELECT RAISE(ABORT, 'a link of the audit record is never deleted'); END;

CREATE TRIGGER audit_checkpoints_are_never_changed BEFORE UPDATE ON audit_checkpoints
BEGIN SELECT RAISE(ABORT, 'a checkpoint of the audit record is never changed'); END;
CREATE TRIGGER audit_checkpoints_are_never_deleted BEFORE DELETE ON audit_checkpoints
WHEN NOT EXISTS (SELECT 1 FROM audit_horizons WHERE position >= OLD.position)
BEGIN SELECT RAISE(ABORT, 'a checkpoint of the audit record is never deleted'); END;

CREATE TRIGGER audit_horizons_are_never_changed BEFORE UPDATE ON audit_horizons
BEGIN SELECT RAISE(ABORT, 'a horizon of the audit record is never changed'); END;
CREATE TRIGGER audit_horizons_are_never_deleted BEFORE DELETE ON audit_horizons
BEGIN SELECT RAISE(ABORT, 'a horizon of the audit record is never deleted'); END;

-- Who could read the record goes on to.
UPDATE tokens SET permissions = permissions || ' audit' WHERE instr(' ' || permissions || ' ', ' admin ') > 0;
