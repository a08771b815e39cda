-- Each question finds its rows at any size: what an MDM is still to be brought, pages of devices, and closing windows. No column changes.

DROP INDEX commands_due;
CREATE INDEX commands_due ON commands (connection, due_at) WHERE state = 'planned';

-- Of epochs that are closed, an enrollment is asked about those alone that never said whose they were.
DROP INDEX epochs_of_enrollment;
CREATE INDEX epochs_nameless ON epochs (organisation, connection, enrollment) WHERE serial IS NULL;

DROP INDEX devices_by_coverage;
CREATE INDEX devices_by_coverage ON devices (organisation, coverage, serial);
CREATE INDEX devices_closing ON devices (organisation, window_closes_at, serial) WHERE coverage = 'missing';
