-- What is kept of a call's runs, what they logged, and how long all of it is kept.

-- How leases ended, but for the end that is the call's outcome, which says it all itself.
-- Invariant: bounded for each call, by its slots (_core/runs.py).
CREATE TABLE IF NOT EXISTS ever_runs (
    seq     BIGINT NOT NULL,
    slot    BIGINT NOT NULL,
    fence   BIGINT NOT NULL,
    number  BIGINT NOT NULL,            -- which attempt it was
    kind    VARCHAR(9) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    session BIGINT,
    started BIGINT,
    ended   BIGINT NOT NULL,
    error   LONGTEXT,
    PRIMARY KEY (seq, slot),
    CONSTRAINT ever_runs_kinds CHECK (kind IN ('failed', 'crashed', 'released'))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Sessions that are over: on which machine a run was is still told.
CREATE TABLE IF NOT EXISTS ever_past_sessions (
    session BIGINT PRIMARY KEY,
    host    LONGTEXT NOT NULL,
    pid     BIGINT NOT NULL,
    closed  BIGINT NOT NULL,
    KEY ever_past_sessions_closed (closed)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What runs have logged, some lines in a row: n is the number of the first of them.
CREATE TABLE IF NOT EXISTS ever_logs (
    seq     BIGINT NOT NULL,
    fence   BIGINT NOT NULL,
    n       BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    at      BIGINT NOT NULL,            -- the instant of the last of them
    `lines` LONGTEXT NOT NULL,
    PRIMARY KEY (seq, fence, n)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- When somebody last began to look for what is kept for too long: one is enough at a time.
CREATE TABLE IF NOT EXISTS ever_sweeps (
    app   VARBINARY(800) PRIMARY KEY,
    began BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
