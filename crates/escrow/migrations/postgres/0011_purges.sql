-- Devices that a person had removed for ever (R2), so that the lock journal does not bring them back.
-- Every column is described in docs/DATA_MODEL.md.

CREATE TABLE purges (
  organisation TEXT COLLATE "C" NOT NULL REFERENCES organisations (id),
  serial       TEXT COLLATE "C" NOT NULL,
  purged_at    BIGINT NOT NULL,
  PRIMARY KEY (organisation, serial)
);
