-- People whose identity a provider (OpenID Connect) vouches for, and the roles that its groups give them.
-- Every column is described in docs/DATA_MODEL.md.

ALTER TABLE people ADD COLUMN issuer TEXT COLLATE "C";
ALTER TABLE people ADD COLUMN subject TEXT COLLATE "C";

CREATE UNIQUE INDEX people_of_issuer ON people (issuer, subject);

ALTER TABLE grants ADD COLUMN by_group BIGINT NOT NULL DEFAULT 0;
