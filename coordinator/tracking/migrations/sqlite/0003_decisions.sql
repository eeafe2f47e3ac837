-- What was decided about runs: grants, preemptions, waits of the first in line, refused submits.

CREATE TABLE decision (
    sequence BIGINT PRIMARY KEY,
    at_us    BIGINT NOT NULL,
    run      BIGINT,          -- absent: its submit was refused
    claimant BIGINT,          -- the run for which it was stopped
    tenant   TEXT   NOT NULL,
    body     TEXT   NOT NULL  -- JSON object
);
CREATE INDEX decision_by_run ON decision (run, sequence);
CREATE INDEX decision_by_claimant ON decision (claimant, sequence);
CREATE INDEX decision_by_time ON decision (at_us);
