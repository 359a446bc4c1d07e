-- Calls, their payloads and outcomes, worker sessions, and the inbox.
-- Instants and delays are integer microseconds, UTC, by the server's clock.
--
-- Every definition commits by itself here, so each statement can be executed again: a process that is killed
-- half-way leaves what the next one goes on with.
--
-- What is compared is VARBINARY: the collations of texts that both servers know take 'k ' for 'k'. The lengths
-- are those of the longest name, 200 characters of up to 4 bytes, and of the longest key, 255; a function's
-- name has 1,024 bytes, so that all of them fit into one index.

CREATE TABLE IF NOT EXISTS ever_meta (
    name  VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
    value BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A block of 65,536 numbers for each request that adds calls. AUTO_INCREMENT gives each its own without waiting
-- for anybody's commit, which the row of a counter would. Invariant: empty whenever nobody is adding.
CREATE TABLE IF NOT EXISTS ever_numbers (
    n BIGINT AUTO_INCREMENT PRIMARY KEY
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Held by who judges a key, until the commit: the row of the key's hash. A row of the key's own would not do: its
-- insertion waits for another one's, and nothing can look whether it would. Two keys in one row keep each other
-- waiting, which is all, and seldom: there are 65,536.
CREATE TABLE IF NOT EXISTS ever_key_locks (
    bucket  INT PRIMARY KEY,
    version BIGINT NOT NULL DEFAULT 0   -- the seq of the last call that was added with one of its keys
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT IGNORE INTO ever_key_locks (bucket)
WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 255)
SELECT a.i * 256 + b.i FROM n AS a JOIN n AS b;

-- A lane is one function of one app in one queue: the unit in which workers say what they serve.
-- Invariant: a lane is never deleted or re-numbered, so every process may remember it. None has the number 0.
CREATE TABLE IF NOT EXISTS ever_lanes (
    lane  BIGINT AUTO_INCREMENT PRIMARY KEY,
    app   VARBINARY(800) NOT NULL,
    queue VARBINARY(800) NOT NULL,
    fn    VARBINARY(1024) NOT NULL,
    UNIQUE KEY ever_lanes_name (app, queue, fn)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The hot row: narrow, touched by every transition. What nearly every call's transitions change keeps its size, so
-- that the row is changed where it stands: an ENUM, and a 0 or the largest number in place of NULL.
-- There are no partial indexes here: a generated column is NULL for the calls that do not belong into one, and
-- all of these stand together at one end of it, in nobody's way.
CREATE TABLE IF NOT EXISTS ever_calls (
    seq          BIGINT PRIMARY KEY,            -- order of submission
    id           VARBINARY(64) NOT NULL,
    lane         BIGINT NOT NULL,
    state        ENUM('waiting', 'scheduled', 'ready', 'leased', 'succeeded', 'failed', 'cancelled', 'expired')
                 CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    priority     BIGINT NOT NULL DEFAULT 0,     -- negated: the smaller goes first
    place        BIGINT NOT NULL,               -- the root's due instant, inherited
    root         BIGINT NOT NULL,               -- the root's seq, inherited
    level        BIGINT NOT NULL DEFAULT 0,     -- the depth, negated: MariaDB 10.6 has no descending indexes
    due          BIGINT NOT NULL,
    expires      BIGINT,
    fence        BIGINT NOT NULL DEFAULT 0,     -- Invariant: only grows; guards every write of a lease
    session      BIGINT NOT NULL DEFAULT 0,     -- Invariant: not 0 exactly when leased
    attempt      BIGINT NOT NULL DEFAULT 0,
    crashes      BIGINT NOT NULL DEFAULT 0,
    crash_limit  BIGINT NOT NULL DEFAULT 5,
    parent       BIGINT,                        -- the parent's seq
    owned        SMALLINT NOT NULL DEFAULT 0,
    child_key    VARBINARY(255),
    asked        BIGINT NOT NULL DEFAULT 0,     -- the parent's fence when it last asked for this child
    after        VARBINARY(64),                 -- the id of the call whose end starts this one
    watched      SMALLINT NOT NULL DEFAULT 0,   -- bit 1: callbacks wait for it; bit 2: rows in waits
    waiter       BIGINT,                        -- the session to tell (further ones are in waits)
    gate         VARBINARY(255),                -- Invariant: a gated call stands in no line
    cancel_asked LONGTEXT,
    started      BIGINT NOT NULL DEFAULT 0,     -- 0: never
    -- The line in which a call that is ready stands: its lane's, or 0, which is that of the suspects. Their
    -- workers died with them twice; kept apart, many of them stand in nobody's way. Behind all lines, the calls of
    -- a session stand at 2^62 + session, and all others at the end.
    line         BIGINT GENERATED ALWAYS AS (CASE WHEN state = 'ready' AND gate IS NULL
                                             THEN CASE WHEN crashes < 2 THEN lane ELSE 0 END
                                             WHEN session <> 0 THEN 4611686018427387904 + session
                                             ELSE 9223372036854775807 END) STORED,
    child_line   BIGINT GENERATED ALWAYS AS (CASE WHEN state = 'ready' AND gate IS NULL AND crashes < 2
                                                       AND level < 0 THEN lane END) STORED,
    due_at       BIGINT GENERATED ALWAYS AS (CASE WHEN state = 'scheduled' THEN due END) STORED,
    expires_at   BIGINT GENERATED ALWAYS AS (CASE WHEN state IN ('waiting', 'scheduled', 'ready')
                                             THEN expires END) STORED,
    UNIQUE KEY ever_calls_id (id),
    KEY ever_calls_ready (line, priority, place, root, level, seq),
    KEY ever_calls_ready_child (child_line, priority, place, root, level, seq),
    KEY ever_calls_due (due_at),
    KEY ever_calls_expires (expires_at),
    KEY ever_calls_parent (parent, child_key),
    KEY ever_calls_after (after),
    CONSTRAINT ever_calls_lease CHECK ((session <> 0) = (state = 'leased'))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The wide rows: written once.
CREATE TABLE IF NOT EXISTS ever_payloads (
    seq      BIGINT PRIMARY KEY,
    args     LONGTEXT NOT NULL,
    policy   LONGTEXT NOT NULL,
    created  BIGINT NOT NULL,
    `key`    VARBINARY(1020),
    tags     LONGTEXT,
    retry_of VARBINARY(64)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS ever_outcomes (
    seq     BIGINT PRIMARY KEY,
    ended   BIGINT NOT NULL,
    session BIGINT,
    value   LONGTEXT,
    error   LONGTEXT
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS ever_progress (
    seq   BIGINT PRIMARY KEY,
    done  DOUBLE NOT NULL,
    total DOUBLE,
    note  LONGTEXT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS ever_keys (
    app   VARBINARY(800) NOT NULL,
    fn    VARBINARY(1024) NOT NULL,
    `key` VARBINARY(1020) NOT NULL,
    seq   BIGINT NOT NULL,
    PRIMARY KEY (app, fn, `key`, seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS ever_sessions (
    session BIGINT AUTO_INCREMENT PRIMARY KEY,
    app     LONGTEXT NOT NULL,
    kind    VARCHAR(9) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    host    LONGTEXT NOT NULL,
    pid     BIGINT NOT NULL,
    opened  BIGINT NOT NULL,
    until   BIGINT NOT NULL,
    CONSTRAINT ever_sessions_kinds CHECK (kind IN ('client', 'worker'))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS ever_serves (
    session BIGINT NOT NULL,
    lane    BIGINT NOT NULL,
    PRIMARY KEY (session, lane)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What a session has to be told. Invariant: taken by delete, in the transaction that reads it.
CREATE TABLE IF NOT EXISTS ever_inbox (
    session BIGINT NOT NULL,
    seq     BIGINT NOT NULL,
    kind    VARCHAR(9) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (session, seq, kind),
    CONSTRAINT ever_inbox_kinds CHECK (kind IN ('ended', 'cancel'))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
-- Sessions to tell beside the call's first waiter.
CREATE TABLE IF NOT EXISTS ever_waits (
    seq     BIGINT NOT NULL,
    session BIGINT NOT NULL,
    PRIMARY KEY (seq, session),
    KEY ever_waits_session (session)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
