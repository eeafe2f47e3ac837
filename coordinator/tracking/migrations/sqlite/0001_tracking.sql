-- What is tracked of runs, the model registry, and the books (ledger, audit) exported from the
-- replicated state. Unsigned 64-bit amounts are kept in their two's complement.

CREATE TABLE tracked_run (
    id             INTEGER PRIMARY KEY,
    run            TEXT    NOT NULL UNIQUE,
    user_name      TEXT    NOT NULL,
    name           TEXT    NOT NULL DEFAULT '',
    parent         TEXT,
    status         TEXT    NOT NULL DEFAULT 'unknown',
    started_us     BIGINT  NOT NULL DEFAULT 0,
    ended_us       BIGINT,
    error          TEXT,
    context        TEXT    NOT NULL DEFAULT '{}',
    progress_done  BIGINT,
    progress_total BIGINT
);

CREATE TABLE run_tag (
    run_id BIGINT NOT NULL REFERENCES tracked_run (id),
    name   TEXT   NOT NULL,
    value  TEXT   NOT NULL,
    PRIMARY KEY (run_id, name)
);

CREATE TABLE run_param (
    run_id BIGINT NOT NULL REFERENCES tracked_run (id),
    name   TEXT   NOT NULL,
    value  TEXT   NOT NULL, -- JSON scalar
    PRIMARY KEY (run_id, name)
);

-- Highest sequence of each writer whose record is stored: moves in the transaction that stores it.
CREATE TABLE journal_writer (
    run_id    BIGINT NOT NULL REFERENCES tracked_run (id),
    writer    TEXT   NOT NULL,
    watermark BIGINT NOT NULL,
    PRIMARY KEY (run_id, writer)
);

-- Answers to records that have one, so that a record sent again is answered the same.
CREATE TABLE journal_result (
    run_id   BIGINT NOT NULL REFERENCES tracked_run (id),
    writer   TEXT   NOT NULL,
    sequence BIGINT NOT NULL,
    result   TEXT   NOT NULL, -- JSON
    PRIMARY KEY (run_id, writer, sequence)
);

CREATE TABLE series (
    id             INTEGER PRIMARY KEY,
    run_id         BIGINT  NOT NULL REFERENCES tracked_run (id),
    name           TEXT    NOT NULL,
    points         BIGINT  NOT NULL,
    latest_step    BIGINT  NOT NULL,
    latest_time_us BIGINT  NOT NULL,
    latest_bits    BIGINT  NOT NULL, -- of the f64: a database turns NaN into NULL
    UNIQUE (run_id, name)
);

-- Points, packed. Never a row a point.
CREATE TABLE chunk (
    series_id   BIGINT NOT NULL REFERENCES series (id),
    first_point BIGINT NOT NULL,
    packed      BLOB   NOT NULL,
    PRIMARY KEY (series_id, first_point)
);

CREATE TABLE artifact (
    run_id     BIGINT NOT NULL REFERENCES tracked_run (id),
    path       TEXT   NOT NULL,
    sha256     TEXT   NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (run_id, path)
);

CREATE TABLE model_version (
    name       TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    run_id     BIGINT NOT NULL REFERENCES tracked_run (id),
    framework  TEXT   NOT NULL,
    manifest   TEXT   NOT NULL, -- JSON object
    files      TEXT   NOT NULL, -- JSON array
    created_us BIGINT NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE INDEX model_version_by_run ON model_version (run_id);

-- One row: the highest outbox record stored, moved in the transaction that stores it.
CREATE TABLE outbox_watermark (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    sequence BIGINT  NOT NULL
);
INSERT INTO outbox_watermark (id, sequence) VALUES (1, 0);

CREATE TABLE ledger (
    sequence                 BIGINT  PRIMARY KEY,
    at_us                    BIGINT  NOT NULL,
    run                      BIGINT  NOT NULL,
    run_name                 TEXT    NOT NULL,
    attempt                  BIGINT  NOT NULL,
    member                   BIGINT  NOT NULL,
    tenant                   TEXT    NOT NULL,
    user_name                TEXT    NOT NULL,
    pool                     TEXT    NOT NULL,
    node                     TEXT    NOT NULL,
    device                   TEXT,
    device_model             TEXT,
    simulated                BOOLEAN NOT NULL,
    share_milli              BIGINT  NOT NULL,
    memory_mib               BIGINT  NOT NULL,
    tags                     TEXT    NOT NULL, -- JSON object of strings
    model                    TEXT,
    start_us                 BIGINT  NOT NULL,
    end_us                   BIGINT  NOT NULL,
    price_per_gpu_hour_micro BIGINT  NOT NULL
);
CREATE INDEX ledger_by_end ON ledger (end_us);
CREATE INDEX ledger_by_run ON ledger (run);

CREATE TABLE audit (
    sequence       BIGINT PRIMARY KEY, -- of the outbox record
    entry_sequence BIGINT NOT NULL,    -- of the chain of hashes
    at_us          BIGINT NOT NULL,
    actor          TEXT   NOT NULL,
    action         TEXT   NOT NULL,
    subject        TEXT   NOT NULL,
    detail         TEXT   NOT NULL,
    previous       TEXT   NOT NULL,
    hash           TEXT   NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject);
