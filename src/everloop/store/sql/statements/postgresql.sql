-- Every statement that Everloop runs on PostgreSQL, by name.
--
-- `-- name: N` starts a statement that changes rows and answers with nothing; the runner sends it together
--   with the next query or the commit.
-- `-- name: N -> a, b` starts a query; its rows are the named columns.
-- A parameter that is a list or a dict arrives as JSON; the columns of rows in it are read by position.
--
-- READ COMMITTED: each statement sees what has been committed when it begins. What a verb decides on is
-- therefore locked where it is read (FOR UPDATE, in the order of seq), and what others hold is passed over
-- where any row will do (SKIP LOCKED).

-- name: seq_next -> first
-- the first of n numbers, which nobody else gets: of a block of 65,536
SELECT nextval('ever_seq') * 65536 - :n::bigint * 0 AS first

-- name: identity -> value
-- the number that this database was given with its schema
SELECT value FROM ever_meta WHERE name = 'identity'

-- name: isolation -> level
SELECT current_setting('transaction_isolation') AS level

-- name: lane_add
INSERT INTO ever_lanes (app, queue, fn)
SELECT value->>0, value->>1, value->>2 FROM jsonb_array_elements(:lanes::jsonb) AS b(value)
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING

-- name: lane_all -> lane, app, queue, fn
SELECT lane, app, queue, fn FROM ever_lanes

-- name: hurry
SET LOCAL lock_timeout = '20ms'

-- Adding ------------------------------------------------------------------------------------------

-- name: add_roots
-- ids: an object of them by seq; roots that share everything else
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter)
SELECT key::bigint, value, :lane::bigint, :state, :priority::bigint, :due::bigint, key::bigint, :due::bigint,
       :waiter::bigint
FROM json_each_text(:ids::json)

-- name: add_started
-- the same, leased to the session that waits for them
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter, fence, session, started)
SELECT key::bigint, value, :lane::bigint, 'leased', :priority::bigint, :due::bigint, key::bigint, :due::bigint,
       :waiter::bigint, 1, :waiter::bigint, :now::bigint
FROM json_each_text(:ids::json)

-- name: add_root_payloads
INSERT INTO ever_payloads (seq, args, created)
SELECT :first::bigint + n - 1, value, :now::bigint
FROM json_array_elements_text(:args::json) WITH ORDINALITY AS b(value, n)

-- name: add_roots_next
-- ids: an object of them by place, behind the number that this transaction has just taken
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter)
SELECT first + key::bigint, value, :lane::bigint, :state, :priority::bigint, :due::bigint, first + key::bigint,
       :due::bigint, :waiter::bigint
FROM (SELECT currval('ever_seq') * 65536 AS first OFFSET 0) AS s, json_each_text(:ids::json)

-- name: add_root_payloads_next
INSERT INTO ever_payloads (seq, args, created)
SELECT first + n - 1, value, :now::bigint
FROM (SELECT currval('ever_seq') * 65536 AS first OFFSET 0) AS s,
     json_array_elements_text(:args::json) WITH ORDINALITY AS b(value, n)

-- name: add_straight
-- the same at once, for roots that share everything else: nearly always they do
WITH s AS MATERIALIZED (SELECT nextval('ever_seq') * 65536 AS first),
called AS (
    INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter)
    SELECT first + key::bigint, value, :lane::bigint, :state, :priority::bigint, :due::bigint, first + key::bigint,
           :due::bigint, :waiter::bigint
    FROM s, json_each_text(:ids::json))
INSERT INTO ever_payloads (seq, args, created)
SELECT first + n - 1, value, :now::bigint
FROM s, json_array_elements_text(:args::json) WITH ORDINALITY AS b(value, n)

-- name: add_calls
-- rows: seq, id, lane, state, priority, place, root, depth, due, expires, crash_limit, parent, owned,
--       child_key, asked, after, watched, waiter
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, depth, due, expires, crash_limit,
                        parent, owned, child_key, asked, after, watched, waiter)
SELECT (value->>0)::bigint, value->>1, (value->>2)::bigint, value->>3, (value->>4)::bigint, (value->>5)::bigint,
       (value->>6)::bigint, (value->>7)::bigint, (value->>8)::bigint, (value->>9)::bigint, (value->>10)::bigint,
       (value->>11)::bigint, (value->>12)::smallint, value->>13, (value->>14)::bigint, value->>15,
       (value->>16)::smallint, (value->>17)::bigint
FROM jsonb_array_elements(:rows::jsonb) AS b(value)

-- name: add_payloads
-- rows: seq, args, policy, key, tags, retry_of
INSERT INTO ever_payloads (seq, args, policy, created, key, tags, retry_of)
SELECT (value->>0)::bigint, value->>1, value->>2, :now::bigint, value->>3, value->>4, value->>5
FROM jsonb_array_elements(:rows::jsonb) AS b(value)

-- name: add_keys
-- rows: app, fn, key, seq
INSERT INTO ever_keys (app, fn, key, seq)
SELECT value->>0, value->>1, value->>2, (value->>3)::bigint FROM jsonb_array_elements(:rows::jsonb) AS b(value)

-- name: add_known -> id
SELECT id FROM ever_calls WHERE id IN (SELECT value FROM json_array_elements_text(:ids::json))

-- name: add_existing -> id, seq, app, fn, state, args
SELECT c.id, c.seq, l.app, l.fn, c.state, p.args
FROM ever_calls AS c
JOIN ever_lanes AS l ON l.lane = c.lane
JOIN ever_payloads AS p ON p.seq = c.seq
WHERE c.id IN (SELECT value FROM json_array_elements_text(:ids::json))

-- name: add_parents -> id, seq, state, fence, priority, place, root, depth
SELECT id, seq, state, fence, priority, place, root, depth
FROM ever_calls WHERE id IN (SELECT value FROM json_array_elements_text(:ids::json))
ORDER BY seq FOR UPDATE

-- name: add_parents_seen -> id, seq, state, fence, priority, place, root, depth
-- the same, not held: in a transaction of the user's, which may stay open
SELECT id, seq, state, fence, priority, place, root, depth
FROM ever_calls WHERE id IN (SELECT value FROM json_array_elements_text(:ids::json))

-- name: add_children -> i, id, seq, state, asked
-- rows: i, parent's seq, child_key; held: a cancellation that is under way is seen
SELECT (b.value->>0)::bigint AS i, c.id, c.seq, c.state, c.cancel_asked IS NOT NULL AS asked
FROM jsonb_array_elements(:rows::jsonb) AS b(value)
JOIN ever_calls AS c ON c.parent = (b.value->>1)::bigint AND c.child_key = b.value->>2
ORDER BY c.seq FOR NO KEY UPDATE OF c

-- name: add_reattach
-- rows: seq, the parent's fence, the parent's seq; only its own children
UPDATE ever_calls AS c SET asked = (b.value->>1)::bigint FROM jsonb_array_elements(:rows::jsonb) AS b(value)
WHERE c.seq = (b.value->>0)::bigint AND c.parent = (b.value->>2)::bigint

-- name: key_lock -> i
-- rows: i, app, fn, key; until the commit, nobody else judges these keys. Answers with those that a transaction
-- judges which is still open: it may be a user's, and stay so for a minute.
SELECT (value->>0)::bigint AS i FROM jsonb_array_elements(:rows::jsonb) AS b(value)
WHERE NOT pg_try_advisory_xact_lock(hashtextextended((value - 0)::text, 7170))

-- name: add_keyed -> i, id, seq, state
-- rows: i, app, fn, key
SELECT (b.value->>0)::bigint AS i, c.id, c.seq, c.state
FROM jsonb_array_elements(:rows::jsonb) AS b(value)
JOIN ever_keys AS k ON k.app = b.value->>1 AND k.fn = b.value->>2 AND k.key = b.value->>3
JOIN ever_calls AS c ON c.seq = k.seq
ORDER BY c.seq

-- name: watch
-- rows: seq, bits
UPDATE ever_calls AS c SET watched = c.watched | b.bits
FROM (SELECT (value->>0)::bigint AS seq, bit_or((value->>1)::smallint) AS bits
      FROM jsonb_array_elements(:rows::jsonb) AS b(value) GROUP BY 1) AS b
WHERE c.seq = b.seq

-- name: watch_ended -> seq
-- those that had ended before they were watched: a look before that locks nothing, and may have been too early
SELECT seq FROM ever_calls
WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))
  AND state IN ('succeeded', 'failed', 'cancelled', 'expired')

-- Settling ----------------------------------------------------------------------------------------

-- name: settle_match -> i, seq, fence, attempt, crashes, due, waiter, watched, cancel_asked, session, crash_limit
-- rows: i, id, fence
SELECT (b.value->>0)::bigint AS i, c.seq, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, c.cancel_asked,
       c.session, c.crash_limit
FROM jsonb_array_elements(:rows::jsonb) AS b(value)
CROSS JOIN LATERAL (
    SELECT * FROM ever_calls WHERE id = b.value->>1 AND fence = (b.value->>2)::bigint AND state = 'leased'
    FOR UPDATE SKIP LOCKED) AS c
ORDER BY c.seq

-- name: settle_held -> i
-- rows: i, id, fence; those that are held by a transaction which is still open
SELECT (b.value->>0)::bigint AS i
FROM jsonb_array_elements(:rows::jsonb) AS b(value)
JOIN ever_calls AS c ON c.id = b.value->>1 AND c.fence = (b.value->>2)::bigint
WHERE c.state = 'leased'

-- name: succeed
UPDATE ever_calls SET state = 'succeeded', attempt = attempt + 1, session = NULL
WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: succeed_values
-- values: an object of them by seq
INSERT INTO ever_outcomes (seq, ended, session, value)
SELECT key::bigint, :now::bigint, :session::bigint, value FROM json_each_text(:values::json)

-- name: settle_straight -> i, waiter
-- Ends first runs that succeeded and that nothing hangs on, all of it at once. ids and values go in pairs. With
-- `whole` it ends all of them, and only when there is nothing else to be done, or none. What is passed over is
-- counted in a setting, which ends with the transaction; who is to be woken stands in another one, which does
-- not. The row with an i of null is there to set them. IS NOT DISTINCT FROM has no index: a session may have
-- thousands of leases.
WITH said AS MATERIALIZED (
    SELECT n - 1 AS i, id, value
    FROM ROWS FROM (json_array_elements_text(:ids::json), json_array_elements_text(:values::json))
         WITH ORDINALITY AS b(id, value, n)),
free AS MATERIALIZED (
    SELECT s.i, s.value, c.seq, c.waiter FROM said AS s
    CROSS JOIN LATERAL (
        SELECT seq, waiter FROM ever_calls
        WHERE id = s.id AND state = 'leased' AND fence = 1 AND watched = 0
          AND session IS NOT DISTINCT FROM :session::bigint
        FOR UPDATE SKIP LOCKED) AS c),
met AS MATERIALIZED (
    SELECT * FROM free
    WHERE :whole::bigint = 0 OR current_setting('everloop.quiet', true) = '1'
                                AND (SELECT count(*) FROM free) = (SELECT count(*) FROM said)),
ended AS (
    UPDATE ever_calls AS c SET state = 'succeeded', attempt = attempt + 1, session = NULL
    FROM met WHERE c.seq = met.seq),
stored AS (
    INSERT INTO ever_outcomes (seq, ended, session, value)
    SELECT seq, :now::bigint, :session::bigint, value FROM met),
waiting AS MATERIALIZED (
    SELECT session FROM ever_sessions
    WHERE session = ANY (ARRAY(SELECT DISTINCT waiter FROM met WHERE waiter <> :session::bigint))),
told AS (
    INSERT INTO ever_inbox (session, seq, kind)
    SELECT w.session, m.seq, 'ended' FROM met AS m JOIN waiting AS w ON w.session = m.waiter
    ORDER BY 1, 2
    ON CONFLICT DO NOTHING),
counted AS MATERIALIZED (
    SELECT set_config('everloop.left', ((SELECT count(*) FROM said) - (SELECT count(*) FROM met))::text, true),
           set_config('everloop.rung',
                      coalesce((SELECT string_agg('ever_' || session, ',') FROM waiting), ''), false))
SELECT met.i, met.waiter FROM counted LEFT JOIN met ON true

-- name: move
-- rows: seq, state, due, attempt, crashes, growth of the fence
UPDATE ever_calls AS c
SET state = b.value->>1, due = (b.value->>2)::bigint, attempt = (b.value->>3)::bigint,
    crashes = (b.value->>4)::bigint, fence = c.fence + (b.value->>5)::bigint, session = NULL
FROM jsonb_array_elements(:rows::jsonb) AS b(value)
WHERE c.seq = (b.value->>0)::bigint

-- name: run_put
-- rows: seq, slot, fence, number, kind, session, error
INSERT INTO ever_runs (seq, slot, fence, number, kind, session, started, ended, error)
SELECT c.seq, (b.value->>1)::bigint, (b.value->>2)::bigint, (b.value->>3)::bigint, b.value->>4,
       (b.value->>5)::bigint, c.started, :now::bigint, b.value->>6
FROM jsonb_array_elements(:rows::jsonb) AS b(value) JOIN ever_calls AS c ON c.seq = (b.value->>0)::bigint
ON CONFLICT (seq, slot) DO UPDATE SET fence = excluded.fence, number = excluded.number, kind = excluded.kind,
    session = excluded.session, started = excluded.started, ended = excluded.ended, error = excluded.error

-- name: end_outcomes
-- rows: seq, session, value, error
INSERT INTO ever_outcomes (seq, ended, session, value, error)
SELECT (value->>0)::bigint, :now::bigint, (value->>1)::bigint, value->>2, value->>3
FROM jsonb_array_elements(:rows::jsonb) AS b(value)

-- name: end_tell
-- only a session that is still there
INSERT INTO ever_inbox (session, seq, kind)
SELECT s.session, b.value::bigint, 'ended'
FROM ever_sessions AS s, json_array_elements_text(:seqs::json) AS b(value)
WHERE s.session = :session::bigint
ORDER BY 2
ON CONFLICT DO NOTHING

-- name: end_waits -> session
SELECT DISTINCT session FROM ever_waits WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: end_tell_waits
INSERT INTO ever_inbox (session, seq, kind)
SELECT w.session, w.seq, 'ended' FROM ever_waits AS w JOIN ever_sessions AS s ON s.session = w.session
WHERE w.seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))
ORDER BY 1, 2
ON CONFLICT DO NOTHING

-- name: end_drop_waits
DELETE FROM ever_waits WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: end_wake
UPDATE ever_calls SET state = CASE WHEN due <= :now::bigint THEN 'ready' ELSE 'scheduled' END
WHERE state = 'waiting' AND after IN (
    SELECT c.id FROM ever_calls AS c
    WHERE c.seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json)))

-- name: end_children -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
-- rows: the parent's seq, fence below which a child was not asked for
SELECT c.seq, c.id, c.state, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, c.cancel_asked, c.session
FROM jsonb_array_elements(:rows::jsonb) AS b(value)
JOIN ever_calls AS c ON c.parent = (b.value->>0)::bigint AND c.asked < (b.value->>1)::bigint
WHERE c.owned = 1 AND c.state IN ('waiting', 'scheduled', 'ready', 'leased')
ORDER BY c.seq FOR UPDATE OF c

-- name: progress_put
-- rows: id, fence, done, total, note
INSERT INTO ever_progress (seq, done, total, note)
SELECT c.seq, (b.value->>2)::double precision, (b.value->>3)::double precision, b.value->>4
FROM jsonb_array_elements(:rows::jsonb) AS b(value) JOIN ever_calls AS c ON c.id = b.value->>0
WHERE c.state = 'leased' AND c.fence = (b.value->>1)::bigint
ORDER BY c.seq
ON CONFLICT (seq) DO UPDATE SET done = excluded.done, total = excluded.total, note = excluded.note

-- Cancelling --------------------------------------------------------------------------------------

-- name: cancel_match -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
SELECT seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
FROM ever_calls WHERE id IN (SELECT value FROM json_array_elements_text(:ids::json))
ORDER BY seq FOR UPDATE

-- name: cancel_parents -> id, fence
-- the parents that cancel; read and not held: the transaction of a body may hold its own call, and wait for the end
-- of what is cancelled here
SELECT id, fence FROM ever_calls WHERE id IN (SELECT value FROM json_array_elements_text(:ids::json))

-- name: cancel_ask
UPDATE ever_calls SET cancel_asked = :message
WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: cancel_tell
INSERT INTO ever_inbox (session, seq, kind)
SELECT session, seq, 'cancel' FROM ever_calls
WHERE session IS NOT NULL AND seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))
ORDER BY 1, 2
ON CONFLICT DO NOTHING

-- Leasing -----------------------------------------------------------------------------------------

-- name: look -> alive, due, expired, suspects, told, ready
-- what a turn has to do beside what it was asked: all of it cheap to see, and rarely there. The session is
-- held, so that nobody reaps it while it takes leases; its renewal is not held up.
SELECT EXISTS (SELECT 1 FROM (SELECT 1 FROM ever_sessions WHERE session = :session::bigint FOR KEY SHARE) AS s)
           AS alive,
       (SELECT min(due) FROM ever_calls WHERE state = 'scheduled' AND due > :due_from::bigint) AS due,
       EXISTS (SELECT 1 FROM ever_calls WHERE expires IS NOT NULL AND state IN ('waiting', 'scheduled', 'ready')
               AND expires > :expires_from::bigint AND expires <= :now::bigint) AS expired,
       EXISTS (SELECT 1 FROM ever_calls WHERE state = 'ready' AND gate IS NULL AND crashes >= 2) AS suspects,
       EXISTS (SELECT 1 FROM ever_inbox WHERE session = :session::bigint) AS told,
       EXISTS (SELECT 1 FROM jsonb_array_elements_text(:lanes::jsonb) AS l(lane)
               CROSS JOIN LATERAL (
                   SELECT 1 FROM ever_calls
                   WHERE lane = l.lane::bigint AND state = 'ready' AND gate IS NULL AND crashes < 2
                   ORDER BY priority, place, root, depth DESC, seq LIMIT 1) AS c) AS ready

-- name: look_straight -> alive, due, expired, suspects, told, quiet
-- The same; and a setting that ends with the transaction says whether there is nothing to be done.
SELECT alive, due, expired, suspects, told,
       set_config('everloop.quiet', (
           alive AND coalesce(due > :now::bigint, true) AND NOT expired AND NOT told
           AND NOT (suspects AND :wanted::bigint = 1))::int::text, true) AS quiet
FROM (SELECT EXISTS (SELECT 1 FROM (SELECT 1 FROM ever_sessions WHERE session = :session::bigint FOR KEY SHARE) AS s)
                 AS alive,
             (SELECT min(due) FROM ever_calls WHERE state = 'scheduled' AND due > :due_from::bigint) AS due,
             EXISTS (SELECT 1 FROM ever_calls
                     WHERE expires IS NOT NULL AND state IN ('waiting', 'scheduled', 'ready')
                       AND expires > :expires_from::bigint AND expires <= :now::bigint) AS expired,
             EXISTS (SELECT 1 FROM ever_calls WHERE state = 'ready' AND gate IS NULL AND crashes >= 2) AS suspects,
             EXISTS (SELECT 1 FROM ever_inbox WHERE session = :session::bigint) AS told OFFSET 0) AS seen

-- name: due_next -> due
SELECT min(due) AS due FROM ever_calls WHERE state = 'scheduled' AND due > :due_from::bigint

-- name: due_ready
UPDATE ever_calls SET state = 'ready'
WHERE seq IN (SELECT seq FROM ever_calls
              WHERE state = 'scheduled' AND due > :due_from::bigint AND due <= :now::bigint
              ORDER BY due LIMIT 5000 FOR UPDATE SKIP LOCKED)

-- name: expire_match -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
SELECT seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session FROM ever_calls
WHERE expires IS NOT NULL AND state IN ('waiting', 'scheduled', 'ready') AND expires <= :now::bigint
ORDER BY expires LIMIT 5000 FOR UPDATE SKIP LOCKED

-- name: lease_pick -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
WITH picked AS MATERIALIZED (
    SELECT c.* FROM jsonb_array_elements_text(:lanes::jsonb) AS l(lane)
    CROSS JOIN LATERAL (
        SELECT seq FROM ever_calls
        WHERE lane = l.lane::bigint AND state = 'ready' AND gate IS NULL AND crashes < 2
        ORDER BY priority, place, root, depth DESC, seq LIMIT :room FOR UPDATE SKIP LOCKED) AS c)
SELECT c.seq, c.place, c.root, c.id, c.fence + 1 AS fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM picked JOIN ever_calls AS c ON c.seq = picked.seq JOIN ever_payloads AS p ON p.seq = c.seq
ORDER BY c.priority, c.place, c.root, c.depth DESC, c.seq LIMIT :room

-- name: lease_pick_children -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
WITH picked AS MATERIALIZED (
    SELECT c.* FROM jsonb_array_elements_text(:lanes::jsonb) AS l(lane)
    CROSS JOIN LATERAL (
        SELECT seq FROM ever_calls
        WHERE lane = l.lane::bigint AND state = 'ready' AND gate IS NULL AND crashes < 2 AND depth > 0
        ORDER BY priority, place, root, depth DESC, seq LIMIT :room FOR UPDATE SKIP LOCKED) AS c)
SELECT c.seq, c.place, c.root, c.id, c.fence + 1 AS fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM picked JOIN ever_calls AS c ON c.seq = picked.seq JOIN ever_payloads AS p ON p.seq = c.seq
ORDER BY c.priority, c.place, c.root, c.depth DESC, c.seq LIMIT :room

-- name: lease_lately -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
-- Those that were submitted after another, by the rows themselves, where the index is full of what has gone from it:
-- it is not for `state || ''`.
WITH picked AS MATERIALIZED (
    SELECT seq FROM ever_calls
    WHERE seq > :since::bigint AND lane IN (SELECT value::bigint FROM json_array_elements_text(:lanes::json))
      AND state || '' = 'ready' AND gate IS NULL AND crashes < 2 AND depth >= :depth::bigint
      AND (expires IS NULL OR expires > :now::bigint)
    ORDER BY priority, place, root, depth DESC, seq LIMIT :room FOR UPDATE SKIP LOCKED)
SELECT c.seq, c.place, c.root, c.id, c.fence + 1 AS fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM picked JOIN ever_calls AS c ON c.seq = picked.seq JOIN ever_payloads AS p ON p.seq = c.seq

-- name: lease_pick_suspect -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
SELECT c.seq, c.place, c.root, c.id, c.fence + 1 AS fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM ever_calls AS c
JOIN ever_payloads AS p ON p.seq = c.seq
WHERE c.state = 'ready' AND c.gate IS NULL AND c.crashes >= 2 AND c.depth >= :depth::bigint
  AND c.lane IN (SELECT value::bigint FROM json_array_elements_text(:lanes::json))
ORDER BY c.priority, c.place, c.root, c.depth DESC, c.seq LIMIT 1 FOR UPDATE OF c SKIP LOCKED

-- name: lease_straight -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
-- Picks and takes at once, unless something has to be done before: `look_straight` and `settle_straight` say so.
WITH lanes AS MATERIALIZED (
    SELECT value::bigint AS lane FROM json_array_elements_text(:lanes::json)
    WHERE current_setting('everloop.quiet', true) = '1'
      AND coalesce(current_setting('everloop.left', true), '') IN ('', '0')),
picked AS MATERIALIZED (
    SELECT c.* FROM lanes AS l
    CROSS JOIN LATERAL (
        SELECT seq, priority, place, root, depth FROM ever_calls
        WHERE lane = l.lane AND state = 'ready' AND gate IS NULL AND crashes < 2
        ORDER BY priority, place, root, depth DESC, seq LIMIT :room FOR UPDATE SKIP LOCKED) AS c),
chosen AS MATERIALIZED (
    SELECT seq FROM picked ORDER BY priority, place, root, depth DESC, seq LIMIT :room),
taken AS (
    UPDATE ever_calls AS c
    SET state = 'leased', session = :session::bigint, fence = fence + 1, started = :now::bigint
    FROM chosen WHERE c.seq = chosen.seq
    RETURNING c.seq, c.place, c.root, c.id, c.fence, c.lane, c.attempt, c.crashes, c.depth, c.priority, c.after, c.due)
SELECT c.seq, c.place, c.root, c.id, c.fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM taken AS c
CROSS JOIN LATERAL (SELECT args, policy, created FROM ever_payloads WHERE seq = c.seq OFFSET 0) AS p

-- name: lease_lately_straight -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
-- The same for those that were submitted after another (see `lease_lately`).
WITH lanes AS MATERIALIZED (
    SELECT array_agg(value::bigint) AS lanes FROM json_array_elements_text(:lanes::json)
    WHERE current_setting('everloop.quiet', true) = '1'
      AND coalesce(current_setting('everloop.left', true), '') IN ('', '0')),
chosen AS MATERIALIZED (
    SELECT seq FROM ever_calls
    WHERE seq > :since::bigint AND lane = ANY((SELECT lanes FROM lanes)::bigint[])
      AND state || '' = 'ready' AND gate IS NULL AND crashes < 2 AND (expires IS NULL OR expires > :now::bigint)
    ORDER BY priority, place, root, depth DESC, seq LIMIT :room FOR UPDATE SKIP LOCKED),
taken AS (
    UPDATE ever_calls AS c
    SET state = 'leased', session = :session::bigint, fence = fence + 1, started = :now::bigint
    FROM chosen WHERE c.seq = chosen.seq
    RETURNING c.seq, c.place, c.root, c.id, c.fence, c.lane, c.attempt, c.crashes, c.depth, c.priority, c.after, c.due)
SELECT c.seq, c.place, c.root, c.id, c.fence, c.lane, p.args, p.policy, c.attempt, c.crashes, c.depth,
       -c.priority AS priority, c.after, c.due, p.created
FROM taken AS c
CROSS JOIN LATERAL (SELECT args, policy, created FROM ever_payloads WHERE seq = c.seq OFFSET 0) AS p

-- name: lease_take
UPDATE ever_calls SET state = 'leased', session = :session::bigint, fence = fence + 1, started = :now::bigint
WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- Inbox -------------------------------------------------------------------------------------------

-- name: inbox_read -> seq, kind, id, state, value, error, attempt, fence, cancel_asked
SELECT i.seq, i.kind, c.id, c.state, o.value, o.error, c.attempt, c.fence, c.cancel_asked
FROM ever_inbox AS i JOIN ever_calls AS c ON c.seq = i.seq LEFT JOIN ever_outcomes AS o ON o.seq = i.seq
WHERE i.session = :session::bigint ORDER BY i.seq, i.kind LIMIT :most FOR UPDATE OF i SKIP LOCKED

-- name: inbox_take
-- rows: seq, kind; only what was read: others may have written since
DELETE FROM ever_inbox
WHERE session = :session::bigint AND (seq, kind) IN (
    SELECT (value->>0)::bigint, value->>1 FROM jsonb_array_elements(:rows::jsonb) AS b(value))

-- name: inbox_straight -> seq, kind, id, state, value, error, attempt, fence, cancel_asked
-- reads and takes at once
WITH taken AS (
    DELETE FROM ever_inbox
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM ever_inbox WHERE session = :session::bigint
        ORDER BY seq, kind LIMIT :most FOR UPDATE SKIP LOCKED))
    RETURNING seq, kind)
SELECT t.seq, t.kind, c.id, c.state, o.value, o.error, c.attempt, c.fence, c.cancel_asked
FROM taken AS t
CROSS JOIN LATERAL (
    SELECT id, state, attempt, fence, cancel_asked FROM ever_calls WHERE seq = t.seq OFFSET 0) AS c
LEFT JOIN LATERAL (SELECT value, error FROM ever_outcomes WHERE seq = t.seq OFFSET 0) AS o ON true
ORDER BY t.seq, t.kind

-- name: wait_match -> id, seq, state
SELECT id, seq, state FROM ever_calls WHERE id IN (SELECT value FROM json_array_elements_text(:ids::json))

-- name: wait_add
INSERT INTO ever_waits (seq, session)
SELECT b.value::bigint, s.session FROM json_array_elements_text(:seqs::json) AS b(value)
JOIN ever_sessions AS s ON s.session = :session::bigint
ORDER BY 1
ON CONFLICT DO NOTHING

-- Sessions ----------------------------------------------------------------------------------------

-- name: session_open -> session
INSERT INTO ever_sessions (app, kind, host, pid, opened, until)
VALUES (:app, :kind, :host, :pid::bigint, :now::bigint, :until::bigint) RETURNING session

-- name: session_kind
UPDATE ever_sessions SET kind = :kind WHERE session = :session::bigint

-- name: session_find -> session
SELECT session FROM ever_sessions WHERE session = :session::bigint FOR NO KEY UPDATE

-- name: session_renew
UPDATE ever_sessions SET until = :until::bigint, gauges = :gauges::text WHERE session = :session::bigint

-- name: session_unserve
DELETE FROM ever_serves WHERE session = :session::bigint

-- name: session_serve
INSERT INTO ever_serves (session, lane)
SELECT :session::bigint, value::bigint FROM json_array_elements_text(:lanes::json) AS b(value)
ON CONFLICT DO NOTHING

-- name: session_leases -> seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
SELECT seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
FROM ever_calls WHERE session = :session::bigint ORDER BY seq FOR UPDATE

-- name: session_free_leases -> seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
SELECT seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
FROM ever_calls WHERE session = :session::bigint ORDER BY seq FOR UPDATE SKIP LOCKED

-- name: session_held -> session
-- a lease of it that was held by another transaction
SELECT session FROM ever_calls WHERE session = :session::bigint LIMIT 1

-- name: session_past
INSERT INTO ever_past_sessions (session, host, pid, closed)
SELECT session, host, pid, :now::bigint FROM ever_sessions WHERE session = :session::bigint
ON CONFLICT DO NOTHING

-- name: session_drop
DELETE FROM ever_sessions WHERE session = :session::bigint

-- name: session_drop_inbox
DELETE FROM ever_inbox WHERE session = :session::bigint

-- name: session_drop_waits
DELETE FROM ever_waits WHERE session = :session::bigint

-- name: session_dead -> session, host, pid
-- FOR UPDATE: not while its turn is under way, and nobody else reaps the same
SELECT session, host, pid FROM ever_sessions
WHERE until <= :now::bigint OR session IN (SELECT value::bigint FROM json_array_elements_text(:gone::json))
ORDER BY session FOR UPDATE SKIP LOCKED

-- Keeping -----------------------------------------------------------------------------------------

-- name: keep_hold -> seq
-- finished calls that something is about to hang on: nobody prunes them meanwhile
SELECT seq FROM ever_calls WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))
ORDER BY seq FOR KEY SHARE

-- name: log_put
-- rows: id, fence, n, attempt, at, lines
INSERT INTO ever_logs (seq, fence, n, attempt, at, lines)
SELECT c.seq, (b.value->>1)::bigint, (b.value->>2)::bigint, (b.value->>3)::bigint, (b.value->>4)::bigint, b.value->>5
FROM jsonb_array_elements(:rows::jsonb) AS b(value) JOIN ever_calls AS c ON c.id = b.value->>0
WHERE c.fence >= (b.value->>1)::bigint
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING

-- name: log_read -> fence, n, attempt, lines
SELECT g.fence, g.n, g.attempt, g.lines
FROM ever_calls AS c JOIN ever_logs AS g ON g.seq = c.seq
WHERE c.id = :id AND (g.fence > :fence::bigint OR (g.fence = :fence::bigint AND g.n > :n::bigint))
ORDER BY g.fence, g.n LIMIT :most::bigint

-- name: sweep_find -> began
SELECT began FROM ever_sweeps WHERE app = :app FOR UPDATE

-- name: sweep_put
INSERT INTO ever_sweeps (app, began) VALUES (:app, :now::bigint)
ON CONFLICT (app) DO UPDATE SET began = excluded.began

-- name: sweep_lost -> session
-- those that something was told while they ended, or that asked for it then
SELECT session FROM ever_inbox AS i
WHERE NOT EXISTS (SELECT 1 FROM ever_sessions AS s WHERE s.session = i.session)
UNION
SELECT session FROM ever_waits AS w
WHERE NOT EXISTS (SELECT 1 FROM ever_sessions AS s WHERE s.session = w.session)

-- name: prune_sessions
DELETE FROM ever_past_sessions WHERE session IN (
    SELECT session FROM ever_past_sessions WHERE closed < :before::bigint
    ORDER BY closed LIMIT 5000 FOR UPDATE SKIP LOCKED)

-- name: prune_bound -> seq
-- the newest finished call that is one too many
SELECT seq FROM ever_calls
WHERE lane IN (SELECT lane FROM ever_lanes WHERE app = :app) AND state IN ('succeeded', 'failed', 'cancelled', 'expired')
ORDER BY seq DESC LIMIT 1 OFFSET :count::bigint

-- name: prune_page -> seq, mine, state, created, ended, valued, logged
SELECT c.seq, l.app = :app AS mine, c.state, p.created, o.ended, o.value IS NOT NULL AS valued,
       EXISTS (SELECT 1 FROM ever_logs AS g WHERE g.seq = c.seq) AS logged
FROM (SELECT seq, lane, state FROM ever_calls WHERE seq > :after::bigint ORDER BY seq LIMIT :most::bigint) AS c
JOIN ever_lanes AS l ON l.lane = c.lane
JOIN ever_payloads AS p ON p.seq = c.seq
LEFT JOIN ever_outcomes AS o ON o.seq = c.seq
ORDER BY c.seq

-- name: prune_lock -> seq
SELECT seq FROM ever_calls WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))
  AND state IN ('succeeded', 'failed', 'cancelled', 'expired')
ORDER BY seq FOR UPDATE SKIP LOCKED

-- name: prune_ties -> seq, root, rooted, alive, held
-- whether its root is there, and lives; whether a call lives whose body may ask for it again, or that follows it
SELECT c.seq, c.root,
       EXISTS (SELECT 1 FROM ever_calls AS r WHERE r.seq = c.root AND r.seq <> c.seq) AS rooted,
       EXISTS (SELECT 1 FROM ever_calls AS r WHERE r.seq = c.root AND r.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')) AS alive,
       (EXISTS (SELECT 1 FROM ever_calls AS f WHERE f.seq = c.parent AND f.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
        OR EXISTS (SELECT 1 FROM ever_calls AS f WHERE f.after = c.id AND f.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))) AS held
FROM ever_calls AS c WHERE c.seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_told -> seq
-- those of whose end a session is yet to be told
SELECT DISTINCT seq FROM ever_inbox WHERE seq BETWEEN :first::bigint AND :last::bigint

-- name: prune_keys
DELETE FROM ever_keys AS k
USING ever_calls AS c
JOIN ever_payloads AS p ON p.seq = c.seq
JOIN ever_lanes AS l ON l.lane = c.lane
WHERE c.seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))
  AND k.app = l.app AND k.fn = l.fn AND k.key = p.key AND k.seq = c.seq

-- name: prune_payloads
DELETE FROM ever_payloads WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_outcomes
DELETE FROM ever_outcomes WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_progress
DELETE FROM ever_progress WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_runs
DELETE FROM ever_runs WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_logs
DELETE FROM ever_logs WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_calls
DELETE FROM ever_calls WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_values
UPDATE ever_outcomes SET value = NULL WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json))

-- name: prune_lines
DELETE FROM ever_logs WHERE seq IN (SELECT value::bigint FROM json_array_elements_text(:seqs::json)) AND at < :before::bigint

-- Reading -----------------------------------------------------------------------------------------

-- name: read_calls -> id, app, queue, fn, state, args, policy, priority, due, created, started, ended, expires, fence, attempt, crashes, crash_limit, depth, session, parent, owned, after, key, tags, retry_of, cancel_asked, value, error, done, total, note
SELECT c.id, l.app, l.queue, l.fn, c.state, p.args, p.policy, -c.priority AS priority, c.due, p.created, c.started,
       o.ended, c.expires, c.fence, c.attempt, c.crashes, c.crash_limit, c.depth,
       coalesce(c.session, o.session) AS session,
       f.id AS parent, c.owned, c.after, p.key, p.tags, p.retry_of, c.cancel_asked, o.value, o.error, g.done,
       g.total, g.note
FROM ever_calls AS c
JOIN ever_lanes AS l ON l.lane = c.lane
JOIN ever_payloads AS p ON p.seq = c.seq
LEFT JOIN ever_outcomes AS o ON o.seq = c.seq
LEFT JOIN ever_calls AS f ON f.seq = c.parent
LEFT JOIN ever_progress AS g ON g.seq = c.seq
WHERE c.id IN (SELECT value FROM json_array_elements_text(:ids::json))

-- name: read_runs -> id, fence, number, kind, session, started, ended, error, host, pid
-- those that were noted, and the last one where the outcome tells of it
SELECT r.id, r.fence, r.number, r.kind, r.session, r.started, r.ended, r.error,
       coalesce(s.host, p.host) AS host, coalesce(s.pid, p.pid) AS pid
FROM (SELECT c.id, r.fence, r.number, r.kind, r.session, r.started, r.ended, r.error
      FROM json_array_elements_text(:ids::json) AS b(value) JOIN ever_calls AS c ON c.id = b.value
           JOIN ever_runs AS r ON r.seq = c.seq
      UNION ALL
      SELECT c.id, c.fence, c.attempt AS number, c.state AS kind, o.session, c.started, o.ended, o.error
      FROM json_array_elements_text(:ids::json) AS b(value) JOIN ever_calls AS c ON c.id = b.value
           JOIN ever_outcomes AS o ON o.seq = c.seq
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
WHERE (:before::text IS NULL OR c.seq < (SELECT seq FROM ever_calls WHERE id = :before::text))
  AND (:app::text IS NULL OR l.app = :app::text)
  AND (:queue::text IS NULL OR l.queue = :queue::text)
  AND (:fn::text IS NULL OR l.fn = :fn::text)
  AND (jsonb_array_length(:states::jsonb) = 0 OR :states::jsonb ? c.state)
  AND (:tag::text IS NULL OR coalesce(p.tags, '[]')::jsonb ? :tag::text)
  AND (:parent::text IS NULL OR c.parent = (SELECT seq FROM ever_calls WHERE id = :parent::text))
ORDER BY c.seq DESC LIMIT :most

-- name: read_counts -> state, n
SELECT c.state, count(*) AS n FROM ever_calls AS c JOIN ever_lanes AS l ON l.lane = c.lane
WHERE (:app::text IS NULL OR l.app = :app::text) AND (:queue::text IS NULL OR l.queue = :queue::text)
GROUP BY c.state

-- name: read_serving -> queue, fn
SELECT DISTINCT l.queue, l.fn
FROM ever_sessions AS s JOIN ever_serves AS v ON v.session = s.session JOIN ever_lanes AS l ON l.lane = v.lane
WHERE s.kind = 'worker' AND s.until > :now::bigint AND l.app = :app

-- name: read_backlog -> app, queue, fn, ready, oldest
SELECT l.app, l.queue, l.fn, count(*) AS ready, min(c.due) AS oldest
FROM ever_calls AS c JOIN ever_lanes AS l ON l.lane = c.lane
WHERE c.state = 'ready' AND (:app::text IS NULL OR l.app = :app::text)
GROUP BY l.app, l.queue, l.fn ORDER BY l.app, l.queue, l.fn

-- name: read_sessions -> session, app, kind, host, pid, opened, until, leased, gauges
SELECT s.session, s.app, s.kind, s.host, s.pid, s.opened, s.until,
       (SELECT count(*) FROM ever_calls AS c WHERE c.session = s.session) AS leased, s.gauges
FROM ever_sessions AS s WHERE :app::text IS NULL OR s.app = :app::text
ORDER BY s.session

-- name: read_session_queues -> session, queue
SELECT DISTINCT v.session, l.queue
FROM ever_sessions AS s JOIN ever_serves AS v ON v.session = s.session JOIN ever_lanes AS l ON l.lane = v.lane
WHERE :app::text IS NULL OR s.app = :app::text

-- name: read_sweep -> began
SELECT began FROM ever_sweeps WHERE app = :app
