-- Calls, their payloads and outcomes, worker sessions, and the inbox.
-- Instants and delays are integer microseconds, UTC. Times are judged by the process clock of the writer
-- (one machine by nature), given as :now.

CREATE TABLE ever_meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- A lane is one function of one app in one queue: the unit in which workers say what they serve.
-- Invariant: a lane is never deleted or re-numbered, so every process may remember it.
CREATE TABLE ever_lanes (
    lane  INTEGER PRIMARY KEY,
    app   TEXT NOT NULL,
    queue TEXT NOT NULL,
    fn    TEXT NOT NULL,
    UNIQUE (app, queue, fn)
);

-- The hot row: narrow, touched by every transition.
CREATE TABLE ever_calls (
    seq          INTEGER PRIMARY KEY,        -- order of submission, given inside the adding transaction
    id           TEXT NOT NULL,
    lane         INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state = 'ready' OR state = 'leased' OR state = 'succeeded'
                                     OR state = 'waiting' OR state = 'scheduled' OR state = 'failed'
                                     OR state = 'cancelled' OR state = 'expired'),
    priority     INTEGER NOT NULL DEFAULT 0, -- negated: the smaller goes first
    place        INTEGER NOT NULL,           -- the root's due instant, inherited
    root         INTEGER NOT NULL,           -- the root's seq, inherited
    depth        INTEGER NOT NULL DEFAULT 0,
    due          INTEGER NOT NULL,
    expires      INTEGER,
    fence        INTEGER NOT NULL DEFAULT 0, -- Invariant: only grows; guards every write of a lease
    session      INTEGER,                    -- Invariant: not null exactly when leased
    attempt      INTEGER NOT NULL DEFAULT 0,
    crashes      INTEGER NOT NULL DEFAULT 0,
    crash_limit  INTEGER NOT NULL DEFAULT 5,
    parent       INTEGER,                    -- the parent's seq
    owned        INTEGER NOT NULL DEFAULT 0,
    child_key    TEXT,
    asked        INTEGER NOT NULL DEFAULT 0, -- the parent's fence when it last asked for this child
    after        TEXT,                       -- the id of the call whose end starts this one
    watched      INTEGER NOT NULL DEFAULT 0, -- bit 1: callbacks wait for it; bit 2: rows in waits
    waiter       INTEGER,                    -- the session to tell (further ones are in waits)
    gate         TEXT,                       -- Invariant: a gated call is not in the ready index
    cancel_asked TEXT,
    started      INTEGER,
    CHECK ((session IS NOT NULL) = (state = 'leased'))
);
CREATE UNIQUE INDEX ever_calls_id ON ever_calls (id);
CREATE INDEX ever_calls_ready ON ever_calls (lane, priority, place, root, depth DESC, seq)
    WHERE state = 'ready' AND gate IS NULL AND crashes < 2;
CREATE INDEX ever_calls_ready_child ON ever_calls (lane, priority, place, root, depth DESC, seq)
    WHERE state = 'ready' AND gate IS NULL AND crashes < 2 AND depth > 0;
-- Suspects: their workers died with them twice. Kept apart, so that many of them stand in nobody's way.
CREATE INDEX ever_calls_suspect ON ever_calls (priority, place, root, depth DESC, seq)
    WHERE state = 'ready' AND gate IS NULL AND crashes >= 2;
CREATE INDEX ever_calls_due ON ever_calls (due) WHERE state = 'scheduled';
CREATE INDEX ever_calls_expires ON ever_calls (expires)
    WHERE expires IS NOT NULL AND state IN ('waiting', 'scheduled', 'ready');
CREATE INDEX ever_calls_session ON ever_calls (session) WHERE session IS NOT NULL;
CREATE INDEX ever_calls_parent ON ever_calls (parent, child_key) WHERE parent IS NOT NULL;
CREATE INDEX ever_calls_after ON ever_calls (after) WHERE after IS NOT NULL;
CREATE INDEX ever_calls_failed ON ever_calls (seq) WHERE state = 'failed';

-- The wide rows: written once.
CREATE TABLE ever_payloads (
    seq      INTEGER PRIMARY KEY,
    args     TEXT NOT NULL,
    policy   TEXT NOT NULL DEFAULT '',
    created  INTEGER NOT NULL,
    key      TEXT,
    tags     TEXT,
    retry_of TEXT
);
CREATE TABLE ever_outcomes (
    seq     INTEGER PRIMARY KEY,
    ended   INTEGER NOT NULL,
    session INTEGER,
    value   TEXT,
    error   TEXT
);
CREATE TABLE ever_progress (
    seq   INTEGER PRIMARY KEY,
    done  REAL NOT NULL,
    total REAL,
    note  TEXT NOT NULL
);
CREATE TABLE ever_keys (
    app TEXT NOT NULL,
    fn  TEXT NOT NULL,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (app, fn, key, seq)
) WITHOUT ROWID;

CREATE TABLE ever_sessions (
    session INTEGER PRIMARY KEY AUTOINCREMENT,
    app     TEXT NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('client', 'worker')),
    host    TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    opened  INTEGER NOT NULL,
    until   INTEGER NOT NULL
);
CREATE TABLE ever_serves (
    session INTEGER NOT NULL,
    lane    INTEGER NOT NULL,
    PRIMARY KEY (session, lane)
) WITHOUT ROWID;

-- What a session has to be told. Invariant: taken by delete, in the transaction that reads it.
CREATE TABLE ever_inbox (
    session INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('ended', 'cancel')),
    PRIMARY KEY (session, seq, kind)
) WITHOUT ROWID;
-- Sessions to tell beside the call's first waiter.
CREATE TABLE ever_waits (
    seq     INTEGER NOT NULL,
    session INTEGER NOT NULL,
    PRIMARY KEY (seq, session)
) WITHOUT ROWID;
CREATE INDEX ever_waits_session ON ever_waits (session);

INSERT INTO ever_meta VALUES ('seq', 0);
