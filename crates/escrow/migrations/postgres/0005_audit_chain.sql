-- The audit record becomes tamper-evident: counters of its writers, a chain over its rows, checkpoints of the chain.
-- Every column is described in docs/DATA_MODEL.md.

-- Null in rows of before.
ALTER TABLE audit ADD COLUMN writer TEXT COLLATE "C";
ALTER TABLE audit ADD COLUMN counter BIGINT;

-- A writer writes for every organisation, and its counter runs through all of them.
CREATE UNIQUE INDEX audit_of_writer ON audit (writer, counter) WHERE writer IS NOT NULL;
CREATE INDEX audit_of_before ON audit (id, organisation) WHERE writer IS NULL;

CREATE TABLE audit_writers (
  id   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  next BIGINT NOT NULL
);

CREATE TABLE audit_chain (
  position     BIGINT PRIMARY KEY,
  organisation TEXT COLLATE "C" NOT NULL,
  audit_row    TEXT COLLATE "C" NOT NULL,
  writer       TEXT COLLATE "C" NOT NULL,
  counter      BIGINT NOT NULL,
  link         TEXT COLLATE "C" NOT NULL
);

CREATE UNIQUE INDEX audit_chain_of_row ON audit_chain (organisation, audit_row);
CREATE UNIQUE INDEX audit_chain_of_writer ON audit_chain (writer, counter);

CREATE TABLE audit_sealer (
  id           BIGINT PRIMARY KEY CHECK (id = 1),
  holder       TEXT COLLATE "C",
  fence        BIGINT NOT NULL,
  leased_until BIGINT NOT NULL,
  position     BIGINT NOT NULL,
  link         TEXT COLLATE "C" NOT NULL,
  checkpoints  BIGINT NOT NULL
);

INSERT INTO audit_sealer (id, holder, fence, leased_until, position, link, checkpoints)
VALUES (1, NULL, 0, 0, 0, '0000000000000000000000000000000000000000000000000000000000000000', 0);

CREATE TABLE audit_checkpoints (
  number    BIGINT PRIMARY KEY,
  position  BIGINT NOT NULL,
  at        BIGINT NOT NULL,
  text      TEXT COLLATE "C" NOT NULL,
  signature TEXT COLLATE "C" NOT NULL
);

CREATE TABLE audit_horizons (
  position  BIGINT PRIMARY KEY,
  at        BIGINT NOT NULL,
  text      TEXT COLLATE "C" NOT NULL,
  signature TEXT COLLATE "C" NOT NULL
);

CREATE TABLE audit_outlets (
  name          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  position      BIGINT NOT NULL,
  sent_at       BIGINT,
  failing_since BIGINT,
  failure       TEXT COLLATE "C"
);

-- Rows may go only when a signed horizon stands for them.
CREATE FUNCTION refuse_unless_signed_for() RETURNS TRIGGER LANGUAGE plpgsql AS '
  DECLARE place BIGINT;
  BEGIN
    IF TG_TABLE_NAME = ''audit'' THEN
      SELECT position INTO place FROM audit_chain
        WHERE audit_chain.organisation = OLD.organisation AND audit_chain.audit_row = OLD.id;
    ELSE
      place := OLD.position;
    END IF;
    IF EXISTS (SELECT 1 FROM audit_horizons WHERE position >= place) THEN
      RETURN OLD;
    END IF;
    RAISE EXCEPTION ''%'', TG_ARGV[0];
  END';

DROP TRIGGER audit_is_never_deleted ON audit;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
  FOR EACH ROW EXECUTE FUNCTION refuse_unless_signed_for('an audit row is never deleted');

CREATE TRIGGER audit_chain_is_never_changed BEFORE UPDATE ON audit_chain
  FOR EACH ROW EXECUTE FUNCTION refuse('a link of the audit record is never changed');
CREATE TRIGGER audit_chain_is_never_deleted BEFORE DELETE ON audit_chain
  FOR EACH ROW EXECUTE FUNCTION refuse_unless_signed_for('a link of the audit record is never deleted');
CREATE TRIGGER audit_chain_is_never_emptied BEFORE TRUNCATE ON audit_chain
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a link of the audit record is never deleted');

CREATE TRIGGER audit_checkpoints_are_never_changed BEFORE UPDATE ON audit_checkpoints
  FOR EACH ROW EXECUTE FUNCTION refuse('a checkpoint of the audit record is never changed');
CREATE TRIGGER audit_checkpoints_are_never_deleted BEFORE DELETE ON audit_checkpoints
  FOR EACH ROW EXECUTE FUNCTION refuse_unless_signed_for('a checkpoint of the audit record is never deleted');
CREATE TRIGGER audit_checkpoints_are_never_emptied BEFORE TRUNCATE ON audit_checkpoints
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a checkpoint of the audit record is never deleted');

CREATE TRIGGER audit_horizons_are_never_changed BEFORE UPDATE ON audit_horizons
  FOR EACH ROW EXECUTE FUNCTION refuse('a horizon of the audit record is never changed');
CREATE TRIGGER audit_horizons_are_never_deleted BEFORE DELETE ON audit_horizons
  FOR EACH ROW EXECUTE FUNCTION refuse('a horizon of the audit record is never deleted');
CREATE TRIGGER audit_horizons_are_never_emptied BEFORE TRUNCATE ON audit_horizons
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a horizon of the audit record is never deleted');

-- Who could read the record goes on to.
UPDATE tokens SET permissions = permissions || ' audit' WHERE ' ' || permissions || ' ' LIKE '% admin %';
