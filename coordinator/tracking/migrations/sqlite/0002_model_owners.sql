-- A model's name belongs to the tenant that registered it first.

-- Empty: not known, because nothing of the run that registered it was charged yet. The next to register
-- a version owns it.
CREATE TABLE model (
    name   TEXT PRIMARY KEY,
    tenant TEXT NOT NULL
);

INSERT INTO model (name, tenant)
SELECT m.name, COALESCE(
    (SELECT l.tenant FROM ledger l
     WHERE l.run = CAST(SUBSTR(r.run, 5) AS BIGINT) AND r.run LIKE 'run-%' LIMIT 1), '')
FROM model_version m JOIN tracked_run r ON r.id = m.run_id
WHERE m.version = (SELECT MIN(o.version) FROM model_version o WHERE o.name = m.name);
