-- What is kept of a call's runs, what they logged, and how long all of it is kept.

-- How leases ended, but for the end that is the call's outcome, which says it all itself.
-- Invariant: bounded for each call, by its slots (_core/runs.py).
CREATE TABLE ever_runs (
    seq     INTEGER NOT NULL,
    slot    INTEGER NOT NULL,
    fence   INTEGER NOT NULL,
    number  INTEGER NOT NULL,           -- which attempt it was
    kind    TEXT NOT NULL CHECK (kind IN ('failed', 'crashed', 'released')),
    session INTEGER,
    started INTEGER,
    ended   INTEGER NOT NULL,
    error   TEXT,
    PRIMARY KEY (seq, slot)
);

-- Sessions that are over: on which machine a run was is still told.
CREATE TABLE ever_past_sessions (
    session INTEGER PRIMARY KEY,
    host    TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    closed  INTEGER NOT NULL
);
CREATE INDEX ever_past_sessions_closed ON ever_past_sessions (closed);

-- What runs have logged, some lines in a row: n is the number of the first of them.
CREATE TABLE ever_logs (
    seq     INTEGER NOT NULL,
    fence   INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,           -- the instant of the last of them
    lines   TEXT NOT NULL,
    PRIMARY KEY (seq, fence, n)
);

-- When somebody last began to look for what is kept for too long: one is enough at a time.
CREATE TABLE ever_sweeps (
    app   TEXT PRIMARY KEY,
    began INTEGER NOT NULL
) WITHOUT ROWID;
