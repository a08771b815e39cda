-- Each question finds its rows at any size: what an MDM is still to be brought, pages of devices, and closing windows. And what makes a
-- repeated event known takes a tenth of the room.

DROP INDEX commands_due;
CREATE INDEX commands_due ON commands (connection, due_at) WHERE state = 'planned';

-- Of epochs that are closed, an enrollment is asked about those alone that never said whose they were.
DROP INDEX epochs_of_enrollment;
CREATE INDEX epochs_nameless ON epochs (organisation, connection, enrollment) WHERE serial IS NULL;

DROP INDEX devices_by_coverage;
CREATE INDEX devices_by_coverage ON devices (organisation, coverage, serial);
CREATE INDEX devices_closing ON devices (organisation, window_closes_at, serial) WHERE coverage = 'missing';

-- The table of before stays for programs of before, which may still run beside; it is empty from here on.
CREATE TABLE received_marks (
  mark        TEXT NOT NULL PRIMARY KEY,
  received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO received_marks (mark, received_at)
  SELECT printf('%016x', event_at) || substr(connection, 25) || substr(digest, 1, 32), received_at FROM received_events WHERE true
  ON CONFLICT DO NOTHING;
DELETE FROM received_events;
