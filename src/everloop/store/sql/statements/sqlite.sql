-- Every statement that Everloop runs on SQLite, by name.
--
-- `-- name: N` starts a statement that changes rows and answers with nothing.
-- `-- name: N -> a, b` starts a query; its rows are the named columns. The runner folds them into one
--   JSON text, because every step of a cursor gives the interpreter lock away and may wait 5 ms to get
--   it back: one statement is one step, whatever the number of rows (docs/decisions/0003).
-- A query without a text has no rows: it is about transactions beside this one, and there are none.
-- A parameter that is a list or a dict arrives as JSON; the columns of rows in it are read by position.

-- name: seq_next -> first
-- the first of n numbers, which nobody else gets
UPDATE ever_meta SET value = value + :n WHERE name = 'seq' RETURNING value - :n + 1 AS first

-- name: begin_write -> value
-- the first statement in a user's transaction: it makes a writer of it, and tells the schema
UPDATE ever_meta SET value = value WHERE name = 'schema' RETURNING value

-- name: lane_add
INSERT OR IGNORE INTO ever_lanes (app, queue, fn) SELECT value->>0, value->>1, value->>2 FROM json_each(:lanes)

-- name: lane_all -> lane, app, queue, fn
SELECT lane, app, queue, fn FROM ever_lanes

-- Adding ------------------------------------------------------------------------------------------

-- name: add_roots
-- ids: an object of them by seq; roots that share everything else
INSERT OR IGNORE INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter)
SELECT CAST(key AS INTEGER), value, :lane, :state, :priority, :due, CAST(key AS INTEGER), :due, :waiter
FROM json_each(:ids)

-- name: add_started
-- the same, leased to the session that waits for them
INSERT OR IGNORE INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter, fence, session, started)
SELECT CAST(key AS INTEGER), value, :lane, 'leased', :priority, :due, CAST(key AS INTEGER), :due, :waiter, 1, :waiter,
       :now
FROM json_each(:ids)

-- name: add_root_payloads
INSERT INTO ever_payloads (seq, args, created) SELECT :first + key, value, :now FROM json_each(:args)

-- name: add_calls
-- rows: seq, id, lane, state, priority, place, root, depth, due, expires, crash_limit, parent, owned,
--       child_key, asked, after, watched, waiter
INSERT OR IGNORE INTO ever_calls (seq, id, lane, state, priority, place, root, depth, due, expires, crash_limit,
                             parent, owned, child_key, asked, after, watched, waiter)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8,
       value->>9, value->>10, value->>11, value->>12, value->>13, value->>14, value->>15, value->>16,
       value->>17
FROM json_each(:rows)

-- name: add_payloads
-- rows: seq, args, policy, key, tags, retry_of
INSERT INTO ever_payloads (seq, args, policy, created, key, tags, retry_of)
SELECT value->>0, value->>1, value->>2, :now, value->>3, value->>4, value->>5 FROM json_each(:rows)

-- name: add_keys
-- rows: app, fn, key, seq
INSERT INTO ever_keys (app, fn, key, seq) SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(:rows)

-- name: add_known -> id
SELECT c.id FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value

-- name: add_existing -> id, seq, app, fn, state, args
SELECT c.id, c.seq, l.app, l.fn, c.state, p.args
FROM json_each(:ids) AS b
JOIN ever_calls AS c ON c.id = b.value
JOIN ever_lanes AS l ON l.lane = c.lane
JOIN ever_payloads AS p ON p.seq = c.seq

-- name: add_parents -> id, seq, state, fence, priority, place, root, depth
SELECT c.id, c.seq, c.state, c.fence, c.priority, c.place, c.root, c.depth
FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value

-- name: add_parents_seen -> id, seq, state, fence, priority, place, root, depth
-- the same, not held: in a transaction of the user's, which may stay open
SELECT c.id, c.seq, c.state, c.fence, c.priority, c.place, c.root, c.depth
FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value

-- name: add_children -> i, id, seq, state, asked
-- rows: i, parent's seq, child_key
SELECT b.value->>0 AS i, c.id, c.seq, c.state, c.cancel_asked IS NOT NULL AS asked
FROM json_each(:rows) AS b
JOIN ever_calls AS c ON c.parent = b.value->>1 AND c.child_key = b.value->>2
ORDER BY c.seq

-- name: add_reattach
-- rows: seq, the parent's fence, the parent's seq; only its own children
UPDATE ever_calls SET asked = b.value->>1 FROM json_each(:rows) AS b
WHERE ever_calls.seq = b.value->>0 AND ever_calls.parent = b.value->>2

-- name: key_lock -> i

-- name: add_keyed -> i, id, seq, state
-- rows: i, app, fn, key
SELECT b.value->>0 AS i, c.id, c.seq, c.state
FROM json_each(:rows) AS b
JOIN ever_keys AS k ON k.app = b.value->>1 AND k.fn = b.value->>2 AND k.key = b.value->>3
JOIN ever_calls AS c ON c.seq = k.seq
ORDER BY c.seq

-- name: watch
-- rows: seq, bits
UPDATE ever_calls SET watched = watched | (b.value->>1) FROM json_each(:rows) AS b WHERE ever_calls.seq = b.value->>0

-- name: watch_ended -> seq

-- Settling ----------------------------------------------------------------------------------------

-- name: settle_match -> i, seq, fence, attempt, crashes, due, waiter, watched, cancel_asked, session, crash_limit
-- rows: i, id, fence
SELECT b.value->>0 AS i, c.seq, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, c.cancel_asked,
       c.session, c.crash_limit
FROM json_each(:rows) AS b
JOIN ever_calls AS c ON c.id = b.value->>1
WHERE c.state = 'leased' AND c.fence = b.value->>2

-- name: settle_held -> i

-- name: succeed
UPDATE ever_calls SET state = 'succeeded', attempt = attempt + 1, session = NULL
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: succeed_values
-- values: an object of them by seq
INSERT INTO ever_outcomes (seq, ended, session, value)
SELECT CAST(key AS INTEGER), :now, :session, value FROM json_each(:values)

-- name: move
-- rows: seq, state, due, attempt, crashes, growth of the fence
UPDATE ever_calls
SET state = b.state, due = b.due, attempt = b.attempt, crashes = b.crashes, fence = fence + b.growth,
    session = NULL
FROM (SELECT value->>0 AS seq, value->>1 AS state, value->>2 AS due, value->>3 AS attempt,
             value->>4 AS crashes, value->>5 AS growth FROM json_each(:rows)) AS b
WHERE ever_calls.seq = b.seq

-- name: run_put
-- rows: seq, slot, fence, number, kind, session, error
INSERT OR REPLACE INTO ever_runs (seq, slot, fence, number, kind, session, started, ended, error)
SELECT c.seq, b.value->>1, b.value->>2, b.value->>3, b.value->>4, b.value->>5, c.started, :now, b.value->>6
FROM json_each(:rows) AS b JOIN ever_calls AS c ON c.seq = b.value->>0

-- name: end_outcomes
-- rows: seq, session, value, error
INSERT INTO ever_outcomes (seq, ended, session, value, error)
SELECT value->>0, :now, value->>1, value->>2, value->>3 FROM json_each(:rows)

-- name: end_tell
-- only a session that is still there
INSERT OR IGNORE INTO ever_inbox (session, seq, kind)
SELECT s.session, b.value, 'ended' FROM ever_sessions AS s, json_each(:seqs) AS b WHERE s.session = :session

-- name: end_waits -> session
SELECT DISTINCT session FROM ever_waits WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: end_tell_waits
INSERT OR IGNORE INTO ever_inbox (session, seq, kind)
SELECT w.session, w.seq, 'ended' FROM ever_waits AS w JOIN ever_sessions AS s ON s.session = w.session
WHERE w.seq IN (SELECT value FROM json_each(:seqs))

-- name: end_drop_waits
DELETE FROM ever_waits WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: end_wake
UPDATE ever_calls SET state = CASE WHEN due <= :now THEN 'ready' ELSE 'scheduled' END
WHERE state = 'waiting' AND after IN (SELECT c.id FROM json_each(:seqs) AS b JOIN ever_calls AS c ON c.seq = b.value)

-- name: end_children -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
-- rows: the parent's seq, fence below which a child was not asked for
SELECT c.seq, c.id, c.state, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, c.cancel_asked, c.session
FROM json_each(:rows) AS b
JOIN ever_calls AS c ON c.parent = b.value->>0 AND c.asked < b.value->>1
WHERE c.owned AND c.state IN ('waiting', 'scheduled', 'ready', 'leased')

-- name: progress_put
-- rows: id, fence, done, total, note
INSERT OR REPLACE INTO ever_progress (seq, done, total, note)
SELECT c.seq, b.value->>2, b.value->>3, b.value->>4
FROM json_each(:rows) AS b JOIN ever_calls AS c ON c.id = b.value->>0
WHERE c.state = 'leased' AND c.fence = b.value->>1

-- Cancelling --------------------------------------------------------------------------------------

-- name: cancel_match -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
SELECT c.seq, c.id, c.state, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, c.cancel_asked, c.session
FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value

-- name: cancel_parents -> id, fence
SELECT c.id, c.fence FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value

-- name: cancel_ask
UPDATE ever_calls SET cancel_asked = :message WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: cancel_tell
INSERT OR IGNORE INTO ever_inbox (session, seq, kind)
SELECT session, seq, 'cancel' FROM ever_calls WHERE seq IN (SELECT value FROM json_each(:seqs))

-- Leasing -----------------------------------------------------------------------------------------

-- name: look -> alive, due, expired, suspects, told, ready
-- what a turn has to do beside what it was asked: all of it cheap to see, and rarely there
SELECT EXISTS (SELECT 1 FROM ever_sessions WHERE session = :session) AS alive,
       (SELECT min(due) FROM ever_calls WHERE state = 'scheduled') AS due,
       EXISTS (SELECT 1 FROM ever_calls WHERE expires IS NOT NULL AND state IN ('waiting', 'scheduled', 'ready')
               AND expires <= :now) AS expired,
       EXISTS (SELECT 1 FROM ever_calls WHERE state = 'ready' AND gate IS NULL AND crashes >= 2) AS suspects,
       EXISTS (SELECT 1 FROM ever_inbox WHERE session = :session) AS told,
       EXISTS (SELECT 1 FROM json_each(:lanes) AS l JOIN ever_calls AS c ON c.lane = l.value
               WHERE c.state = 'ready' AND c.gate IS NULL AND c.crashes < 2) AS ready

-- name: due_next -> due
SELECT min(due) AS due FROM ever_calls WHERE state = 'scheduled'

-- name: due_ready
UPDATE ever_calls SET state = 'ready'
WHERE seq IN (SELECT seq FROM ever_calls WHERE state = 'scheduled' AND due <= :now ORDER BY due LIMIT 5000)

-- name: expire_match -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
SELECT seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session FROM ever_calls
WHERE expires IS NOT NULL AND state IN ('waiting', 'scheduled', 'ready') AND expires <= :now LIMIT 5000

-- name: lease_pick -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
SELECT c.seq, c.place, c.root, c.id, c.fence + 1 AS fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM json_each(:lanes) AS l
JOIN ever_calls AS c ON c.seq IN (
    SELECT seq FROM ever_calls WHERE lane = l.value AND state = 'ready' AND gate IS NULL AND crashes < 2
    ORDER BY priority, place, root, depth DESC, seq LIMIT :room)
JOIN ever_payloads AS p ON p.seq = c.seq
ORDER BY c.priority, c.place, c.root, c.depth DESC, c.seq LIMIT :room

-- name: lease_pick_children -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
SELECT c.seq, c.place, c.root, c.id, c.fence + 1 AS fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM json_each(:lanes) AS l
JOIN ever_calls AS c ON c.seq IN (
    SELECT seq FROM ever_calls WHERE lane = l.value AND state = 'ready' AND gate IS NULL AND crashes < 2 AND depth > 0
    ORDER BY priority, place, root, depth DESC, seq LIMIT :room)
JOIN ever_payloads AS p ON p.seq = c.seq
ORDER BY c.priority, c.place, c.root, c.depth DESC, c.seq LIMIT :room

-- name: lease_pick_suspect -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
SELECT c.seq, c.place, c.root, c.id, c.fence + 1 AS fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM ever_calls AS c
JOIN ever_payloads AS p ON p.seq = c.seq
WHERE c.state = 'ready' AND c.gate IS NULL AND c.crashes >= 2 AND c.depth >= :depth
  AND c.lane IN (SELECT value FROM json_each(:lanes))
ORDER BY c.priority, c.place, c.root, c.depth DESC, c.seq LIMIT 1

-- name: lease_take
UPDATE ever_calls SET state = 'leased', session = :session, fence = fence + 1, started = :now
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- Inbox -------------------------------------------------------------------------------------------

-- name: inbox_read -> seq, kind, id, state, value, error, attempt, fence, cancel_asked
SELECT i.seq, i.kind, c.id, c.state, o.value, o.error, c.attempt, c.fence, c.cancel_asked
FROM ever_inbox AS i JOIN ever_calls AS c ON c.seq = i.seq LEFT JOIN ever_outcomes AS o ON o.seq = i.seq
WHERE i.session = :session ORDER BY i.seq, i.kind LIMIT :most

-- name: inbox_take
-- as far as it was read: seq and kind are those of the last row (rows: all of them)
DELETE FROM ever_inbox WHERE session = :session AND (seq, kind) <= (:seq, :kind)

-- name: wait_match -> id, seq, state
SELECT c.id, c.seq, c.state FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value

-- name: wait_add
INSERT OR IGNORE INTO ever_waits (seq, session)
SELECT b.value, s.session FROM json_each(:seqs) AS b JOIN ever_sessions AS s ON s.session = :session

-- Sessions ----------------------------------------------------------------------------------------

-- name: session_open -> session
INSERT INTO ever_sessions (app, kind, host, pid, opened, until)
VALUES (:app, :kind, :host, :pid, :now, :until) RETURNING session

-- name: session_kind
UPDATE ever_sessions SET kind = :kind WHERE session = :session

-- name: session_find -> session
SELECT session FROM ever_sessions WHERE session = :session

-- name: session_renew
UPDATE ever_sessions SET until = :until, gauges = :gauges WHERE session = :session

-- name: session_unserve
DELETE FROM ever_serves WHERE session = :session

-- name: session_serve
INSERT OR IGNORE INTO ever_serves (session, lane) SELECT :session, value FROM json_each(:lanes)

-- name: session_leases -> seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
SELECT seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
FROM ever_calls WHERE session = :session

-- name: session_free_leases -> seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
SELECT seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
FROM ever_calls WHERE session = :session

-- name: session_held -> session

-- name: session_past
INSERT OR IGNORE INTO ever_past_sessions (session, host, pid, closed)
SELECT session, host, pid, :now FROM ever_sessions WHERE session = :session

-- name: session_drop
DELETE FROM ever_sessions WHERE session = :session

-- name: session_drop_inbox
DELETE FROM ever_inbox WHERE session = :session

-- name: session_drop_waits
DELETE FROM ever_waits WHERE session = :session

-- name: session_dead -> session, host, pid
SELECT session, host, pid FROM ever_sessions WHERE until <= :now OR session IN (SELECT value FROM json_each(:gone))

-- Keeping -----------------------------------------------------------------------------------------

-- name: keep_hold -> seq
-- finished calls that something is about to hang on
SELECT seq FROM ever_calls WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: log_put
-- rows: id, fence, n, attempt, at, lines
INSERT OR IGNORE INTO ever_logs (seq, fence, n, attempt, at, lines)
SELECT c.seq, b.value->>1, b.value->>2, b.value->>3, b.value->>4, b.value->>5
FROM json_each(:rows) AS b JOIN ever_calls AS c ON c.id = b.value->>0
WHERE c.fence >= b.value->>1

-- name: log_read -> fence, n, attempt, lines
SELECT g.fence, g.n, g.attempt, g.lines
FROM ever_calls AS c JOIN ever_logs AS g ON g.seq = c.seq
WHERE c.id = :id AND (g.fence > :fence OR (g.fence = :fence AND g.n > :n))
ORDER BY g.fence, g.n LIMIT :most

-- name: sweep_find -> began
SELECT began FROM ever_sweeps WHERE app = :app

-- name: sweep_put
INSERT OR REPLACE INTO ever_sweeps (app, began) VALUES (:app, :now)

-- name: sweep_lost -> session
-- those that something was told while they ended, or that asked for it then
SELECT session FROM ever_inbox AS i
WHERE NOT EXISTS (SELECT 1 FROM ever_sessions AS s WHERE s.session = i.session)
UNION
SELECT session FROM ever_waits AS w
WHERE NOT EXISTS (SELECT 1 FROM ever_sessions AS s WHERE s.session = w.session)

-- name: prune_sessions
DELETE FROM ever_past_sessions
WHERE session IN (SELECT session FROM ever_past_sessions WHERE closed < :before ORDER BY closed LIMIT 5000)

-- name: prune_bound -> seq
-- the newest finished call that is one too many
SELECT seq FROM ever_calls
WHERE lane IN (SELECT lane FROM ever_lanes WHERE app = :app) AND state IN ('succeeded', 'failed', 'cancelled', 'expired')
ORDER BY seq DESC LIMIT 1 OFFSET :count

-- name: prune_page -> seq, mine, state, created, ended, valued, logged
SELECT c.seq, l.app = :app AS mine, c.state, p.created, o.ended, o.value IS NOT NULL AS valued,
       EXISTS (SELECT 1 FROM ever_logs AS g WHERE g.seq = c.seq) AS logged
FROM (SELECT seq, lane, state FROM ever_calls WHERE seq > :after ORDER BY seq LIMIT :most) AS c
JOIN ever_lanes AS l ON l.lane = c.lane
JOIN ever_payloads AS p ON p.seq = c.seq
LEFT JOIN ever_outcomes AS o ON o.seq = c.seq
ORDER BY c.seq

-- name: prune_lock -> seq
SELECT seq FROM ever_calls WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state IN ('succeeded', 'failed', 'cancelled', 'expired')

-- name: prune_ties -> seq, root, rooted, alive, held
-- whether its root is there, and lives; whether a call lives whose body may ask for it again, or that follows it
SELECT c.seq, c.root,
       EXISTS (SELECT 1 FROM ever_calls AS r WHERE r.seq = c.root AND r.seq <> c.seq) AS rooted,
       EXISTS (SELECT 1 FROM ever_calls AS r WHERE r.seq = c.root AND r.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')) AS alive,
       (EXISTS (SELECT 1 FROM ever_calls AS f WHERE f.seq = c.parent AND f.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
        OR EXISTS (SELECT 1 FROM ever_calls AS f WHERE f.after = c.id AND f.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))) AS held
FROM json_each(:seqs) AS b JOIN ever_calls AS c ON c.seq = b.value

-- name: prune_told -> seq
-- those of whose end a session is yet to be told
SELECT DISTINCT seq FROM ever_inbox WHERE seq BETWEEN :first AND :last

-- name: prune_keys
DELETE FROM ever_keys WHERE (app, fn, key, seq) IN (
    SELECT l.app, l.fn, p.key, c.seq
    FROM json_each(:seqs) AS b
    JOIN ever_calls AS c ON c.seq = b.value
    JOIN ever_payloads AS p ON p.seq = c.seq
    JOIN ever_lanes AS l ON l.lane = c.lane
    WHERE p.key IS NOT NULL)

-- name: prune_payloads
DELETE FROM ever_payloads WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: prune_outcomes
DELETE FROM ever_outcomes WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: prune_progress
DELETE FROM ever_progress WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: prune_runs
DELETE FROM ever_runs WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: prune_logs
DELETE FROM ever_logs WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: prune_calls
DELETE FROM ever_calls WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: prune_values
UPDATE ever_outcomes SET value = NULL WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: prune_lines
DELETE FROM ever_logs WHERE seq IN (SELECT value FROM json_each(:seqs)) AND at < :before

-- Reading -----------------------------------------------------------------------------------------

-- name: read_calls -> id, app, queue, fn, state, args, policy, priority, due, created, started, ended, expires, fence, attempt, crashes, crash_limit, depth, session, parent, owned, after, key, tags, retry_of, cancel_asked, value, error, done, total, note
SELECT c.id, l.app, l.queue, l.fn, c.state, p.args, p.policy, -c.priority AS priority, c.due, p.created, c.started,
       o.ended, c.expires, c.fence, c.attempt, c.crashes, c.crash_limit, c.depth,
       coalesce(c.session, o.session) AS session,
       f.id AS parent, c.owned, c.after, p.key, p.tags, p.retry_of, c.cancel_asked, o.value, o.error, g.done,
       g.total, g.note
FROM json_each(:ids) AS b
JOIN ever_calls AS c ON c.id = b.value
JOIN ever_lanes AS l ON l.lane = c.lane
JOIN ever_payloads AS p ON p.seq = c.seq
LEFT JOIN ever_outcomes AS o ON o.seq = c.seq
LEFT JOIN ever_calls AS f ON f.seq = c.parent
LEFT JOIN ever_progress AS g ON g.seq = c.seq

-- name: read_runs -> id, fence, number, kind, session, started, ended, error, host, pid
-- those that were noted, and the last one where the outcome tells of it
SELECT r.id, r.fence, r.number, r.kind, r.session, r.started, r.ended, r.error,
       coalesce(s.host, p.host) AS host, coalesce(s.pid, p.pid) AS pid
FROM (SELECT c.id, r.fence, r.number, r.kind, r.session, r.started, r.ended, r.error
      FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value JOIN ever_runs AS r ON r.seq = c.seq
      UNION ALL
      SELECT c.id, c.fence, c.attempt AS number, c.state AS kind, o.session, c.started, o.ended, o.error
      FROM json_each(:ids) AS b JOIN ever_calls AS c ON c.id = b.value JOIN ever_outcomes AS o ON o.seq = c.seq
      WHERE o.session IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM ever_runs AS r WHERE r.seq = c.seq AND r.fence >= c.fence - 1)) AS r
LEFT JOIN ever_sessions AS s ON s.session = r.session
LEFT JOIN ever_past_sessions AS p ON p.session = r.session
ORDER BY r.fence

-- name: read_find -> id
-- Empty lists and nulls leave a condition out.
SELECT c.id
FROM ever_calls AS c
JOIN ever_lanes AS l ON l.lane = c.lane
JOIN ever_payloads AS p ON p.seq = c.seq
WHERE (:before IS NULL OR c.seq < (SELECT seq FROM ever_calls WHERE id = :before))
  AND (:app IS NULL OR l.app = :app)
  AND (:queue IS NULL OR l.queue = :queue)
  AND (:fn IS NULL OR l.fn = :fn)
  AND (json_array_length(:states) = 0 OR c.state IN (SELECT value FROM json_each(:states)))
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(coalesce(p.tags, '[]')) WHERE value = :tag))
  AND (:parent IS NULL OR c.parent = (SELECT seq FROM ever_calls WHERE id = :parent))
ORDER BY c.seq DESC LIMIT :most

-- name: read_counts -> state, n
SELECT c.state, count(*) AS n FROM ever_calls AS c JOIN ever_lanes AS l ON l.lane = c.lane
WHERE (:app IS NULL OR l.app = :app) AND (:queue IS NULL OR l.queue = :queue)
GROUP BY c.state

-- name: read_serving -> queue, fn
SELECT DISTINCT l.queue, l.fn
FROM ever_sessions AS s JOIN ever_serves AS v ON v.session = s.session JOIN ever_lanes AS l ON l.lane = v.lane
WHERE s.kind = 'worker' AND s.until > :now AND l.app = :app

-- name: read_backlog -> app, queue, fn, ready, oldest
SELECT l.app, l.queue, l.fn, count(*) AS ready, min(c.due) AS oldest
FROM ever_calls AS c JOIN ever_lanes AS l ON l.lane = c.lane
WHERE c.state = 'ready' AND (:app IS NULL OR l.app = :app)
GROUP BY l.app, l.queue, l.fn ORDER BY l.app, l.queue, l.fn

-- name: read_sessions -> session, app, kind, host, pid, opened, until, leased, gauges
SELECT s.session, s.app, s.kind, s.host, s.pid, s.opened, s.until,
       (SELECT count(*) FROM ever_calls AS c WHERE c.session = s.session) AS leased, s.gauges
FROM ever_sessions AS s WHERE :app IS NULL OR s.app = :app
ORDER BY s.session

-- name: read_session_queues -> session, queue
SELECT DISTINCT v.session, l.queue
FROM ever_sessions AS s JOIN ever_serves AS v ON v.session = s.session JOIN ever_lanes AS l ON l.lane = v.lane
WHERE :app IS NULL OR s.app = :app

-- name: read_sweep -> began
SELECT began FROM ever_sweeps WHERE app = :app
