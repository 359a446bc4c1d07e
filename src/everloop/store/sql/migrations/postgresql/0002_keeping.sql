-- What is kept of a call's runs, what they logged, and how long all of it is kept.

-- How leases ended, but for the end that is the call's outcome, which says it all itself.
-- Invariant: bounded for each call, by its slots (_core/runs.py).
CREATE TABLE ever_runs (
    seq     bigint NOT NULL,
    slot    bigint NOT NULL,
    fence   bigint NOT NULL,
    number  bigint NOT NULL,            -- which attempt it was
    kind    text COLLATE "C" NOT NULL CHECK (kind IN ('failed', 'crashed', 'released')),
    session bigint,
    started bigint,
    ended   bigint NOT NULL,
    error   text,
    PRIMARY KEY (seq, slot)
);

-- Sessions that are over: on which machine a run was is still told.
CREATE TABLE ever_past_sessions (
    session bigint PRIMARY KEY,
    host    text NOT NULL,
    pid     bigint NOT NULL,
    closed  bigint NOT NULL
);
CREATE INDEX ever_past_sessions_closed ON ever_past_sessions (closed);

-- What runs have logged, some lines in a row: n is the number of the first of them.
CREATE TABLE ever_logs (
    seq     bigint NOT NULL,
    fence   bigint NOT NULL,
    n       bigint NOT NULL,
    attempt bigint NOT NULL,
    at      bigint NOT NULL,            -- the instant of the last of them
    lines   text NOT NULL,
    PRIMARY KEY (seq, fence, n)
);

-- When somebody last began to look for what is kept for too long: one is enough at a time.
CREATE TABLE ever_sweeps (
    app   text COLLATE "C" PRIMARY KEY,
    began bigint NOT NULL
);
