-- People whose identity a provider (OpenID Connect) vouches for, and the roles that its groups give them.
-- Every column is described in docs/DATA_MODEL.md.

ALTER TABLE people ADD COLUMN issuer TEXT;
ALTER TABLE people ADD COLUMN subject TEXT;

CREATE UNIQUE INDEX people_of_issuer ON people (issuer, subject);

ALTER TABLE grants ADD COLUMN by_group INTEGER NOT NULL DEFAULT 0;
