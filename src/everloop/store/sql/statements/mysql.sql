-- Every statement that Everloop runs on MySQL and MariaDB, by name.
--
-- `-- name: N` starts what changes rows and answers with nothing; the runner sends it together with the next
--   query or the commit.
-- `-- name: N -> a, b` starts a query; its rows are the named columns.
-- A name may stand for several statements, each but the last ended by a `;` at the end of its line. They are
--   sent one after the other, and the last one answers.
-- A parameter that is a list or a dict arrives as JSON, a dict as the list of its pairs; the columns of rows in
--   it are read by position. Texts are read as LONGTEXT: a shorter type would cut them off in silence.
-- `{for :x in :xs, joined by J: ...}` is `...` once for each item of a list, joined by J; with `for several`, it is
--   nothing where there is but one. `{one :x in :xs: ...}` is
--   `...` where there is but one item, and `{several :xs: ...}` where there are more: what is asked or written
--   alone, as it is where little goes on, costs the server half as much without a table around it. Rows and the
--   pairs of a dict have several names: `:x, :y`.
-- `{C among :xs}` says that the column C is one of a list's numbers, and `{C among :xs of 'k'}` that it is one of
--   those before a 'k' in a list of pairs; a statement without any is left out. Rows that are found by numbers
--   are changed while they are found; joined to a list, they are first written down, and then found again.
-- `{row: a, b}` is a row as one JSON list, in which texts are quoted already: the driver takes longer over each
--   column of each row than over all the rest.
--
-- READ COMMITTED: each statement sees what has been committed when it begins. What a verb decides on is
-- therefore locked where it is read (FOR UPDATE), and what others hold is passed over where any row will do
-- (SKIP LOCKED). Rows are locked one by one as they are read, before any ORDER BY: for locks in the order of
-- seq, which everybody keeps to, a query in FROM brings the numbers in that order, and its LIMIT, which limits
-- nothing, keeps the server from dropping the order. STRAIGHT_JOIN keeps to it, too.
-- FOR UPDATE locks the rows of every table beside it, but not those of a query in its FROM, nor of one around
-- it: what is only read stands in another query than what is locked. Tables are joined to what must be changed:
-- `UPDATE ... WHERE seq IN (SELECT ...)` would read the whole table. And FORCE INDEX, for so would a join, when
-- the table is small or believed to be: every row that is read is a row that is locked.

-- name: seq_next -> first
-- the first of a block of 65,536 numbers, which nobody else gets; statements behind it may compute it as well
INSERT INTO ever_numbers () VALUES ();
DELETE FROM ever_numbers WHERE n = LAST_INSERT_ID();
SELECT LAST_INSERT_ID() * 65536 AS first

-- name: identity -> value
-- the number that this database was given with its schema
SELECT value FROM ever_meta WHERE name = 'identity'

-- name: lane_add
INSERT INTO ever_lanes (app, queue, fn)
SELECT b.app, b.queue, b.fn
FROM JSON_TABLE(:lanes, '$[*]' COLUMNS (app LONGTEXT PATH '$[0]', queue LONGTEXT PATH '$[1]',
                                        fn LONGTEXT PATH '$[2]')) AS b
LEFT JOIN ever_lanes AS l ON l.app = b.app AND l.queue = b.queue AND l.fn = b.fn
WHERE l.lane IS NULL
ORDER BY 1, 2, 3
ON DUPLICATE KEY UPDATE lane = ever_lanes.lane

-- name: lane_all -> lane, app, queue, fn
SELECT lane, app, queue, fn FROM ever_lanes

-- name: hurry
-- of a connection that waits for nobody; MySQL knows no shorter wait than a second
SET innodb_lock_wait_timeout = /*M! 0 */ /*!80000 1 */

-- Adding ------------------------------------------------------------------------------------------

-- name: add_roots
-- ids: pairs of seq and id; roots that share everything else
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter)
{one :seq, :id in :ids: VALUES (:seq, :id, :lane, :state, :priority, :due, :seq, :due, :waiter)}
{several :ids:
SELECT b.seq, b.id, :lane, :state, :priority, :due, b.seq, :due, :waiter
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', id LONGTEXT PATH '$[1]')) AS b}

-- name: add_started
-- the same, leased to the session that waits for them
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter, fence, session, started)
SELECT b.seq, b.id, :lane, 'leased', :priority, :due, b.seq, :due, :waiter, 1, :waiter, :now
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', id LONGTEXT PATH '$[1]')) AS b

-- name: add_root_payloads
INSERT INTO ever_payloads (seq, args, policy, created)
{one :each in :args: VALUES (:first, :each, '', :now)}
{several :args:
SELECT :first + b.n - 1, b.args, '', :now
FROM JSON_TABLE(:args, '$[*]' COLUMNS (n FOR ORDINALITY, args LONGTEXT PATH '$')) AS b}

-- name: add_roots_next
-- ids: pairs of the place among them and the id, behind the number that this connection has just taken
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, due, waiter)
{one :n, :id in :ids:
VALUES (LAST_INSERT_ID() * 65536 + :n, :id, :lane, :state, :priority, :due, LAST_INSERT_ID() * 65536 + :n, :due,
        :waiter)}
{several :ids:
SELECT LAST_INSERT_ID() * 65536 + b.n, b.id, :lane, :state, :priority, :due, LAST_INSERT_ID() * 65536 + b.n, :due,
       :waiter
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (n BIGINT PATH '$[0]', id LONGTEXT PATH '$[1]')) AS b}

-- name: add_root_payloads_next
INSERT INTO ever_payloads (seq, args, policy, created)
{one :each in :args: VALUES (LAST_INSERT_ID() * 65536, :each, '', :now)}
{several :args:
SELECT LAST_INSERT_ID() * 65536 + b.n - 1, b.args, '', :now
FROM JSON_TABLE(:args, '$[*]' COLUMNS (n FOR ORDINALITY, args LONGTEXT PATH '$')) AS b}

-- name: add_calls
-- rows: seq, id, lane, state, priority, place, root, depth, due, expires, crash_limit, parent, owned,
--       child_key, asked, after, watched, waiter
INSERT INTO ever_calls (seq, id, lane, state, priority, place, root, level, due, expires, crash_limit,
                        parent, owned, child_key, asked, after, watched, waiter)
SELECT b.seq, b.id, b.lane, b.state, b.priority, b.place, b.root, -b.depth, b.due, b.expires, b.crash_limit,
       b.parent, b.owned, b.child_key, b.asked, b.after, b.watched, b.waiter
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    seq BIGINT PATH '$[0]', id LONGTEXT PATH '$[1]', lane BIGINT PATH '$[2]', state LONGTEXT PATH '$[3]',
    priority BIGINT PATH '$[4]', place BIGINT PATH '$[5]', root BIGINT PATH '$[6]', depth BIGINT PATH '$[7]',
    due BIGINT PATH '$[8]', expires BIGINT PATH '$[9]', crash_limit BIGINT PATH '$[10]',
    parent BIGINT PATH '$[11]', owned BIGINT PATH '$[12]', child_key LONGTEXT PATH '$[13]',
    asked BIGINT PATH '$[14]', after LONGTEXT PATH '$[15]', watched BIGINT PATH '$[16]',
    waiter BIGINT PATH '$[17]')) AS b

-- name: add_payloads
-- rows: seq, args, policy, key, tags, retry_of
INSERT INTO ever_payloads (seq, args, policy, created, `key`, tags, retry_of)
SELECT b.seq, b.args, COALESCE(b.policy, ''), :now, b.`key`,
       CASE WHEN JSON_TYPE(b.tags) = 'ARRAY' THEN b.tags END, b.retry_of
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    seq BIGINT PATH '$[0]', args LONGTEXT PATH '$[1]', policy LONGTEXT PATH '$[2]', `key` LONGTEXT PATH '$[3]',
    tags JSON PATH '$[4]', retry_of LONGTEXT PATH '$[5]')) AS b

-- name: add_keys
-- rows: app, fn, key, seq
INSERT INTO ever_keys (app, fn, `key`, seq)
SELECT b.app, b.fn, b.`key`, b.seq
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (app LONGTEXT PATH '$[0]', fn LONGTEXT PATH '$[1]',
                                       `key` LONGTEXT PATH '$[2]', seq BIGINT PATH '$[3]')) AS b;
UPDATE (SELECT CRC32(CONCAT_WS(CHAR(0), app, fn, `key`)) & 65535 AS bucket, MAX(seq) AS seq
        FROM JSON_TABLE(:rows, '$[*]' COLUMNS (app LONGTEXT PATH '$[0]', fn LONGTEXT PATH '$[1]',
                                               `key` LONGTEXT PATH '$[2]', seq BIGINT PATH '$[3]')) AS b
        GROUP BY bucket ORDER BY bucket LIMIT 18446744073709551615) AS b
STRAIGHT_JOIN ever_key_locks AS k FORCE INDEX (PRIMARY) ON k.bucket = b.bucket
SET k.version = b.seq

-- name: add_known -> id
SELECT c.id FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id

-- name: add_existing -> id, seq, app, fn, state, args
SELECT c.id, c.seq, l.app, l.fn, c.state, p.args
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id
STRAIGHT_JOIN ever_lanes AS l ON l.lane = c.lane
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq

-- name: add_parents -> id, seq, state, fence, priority, place, root, depth
SELECT c.id, c.seq, c.state, c.fence, c.priority, c.place, c.root, -c.level AS depth
FROM (SELECT DISTINCT c.seq FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id
      ORDER BY c.seq LIMIT 18446744073709551615) AS k
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = k.seq FOR UPDATE

-- name: add_parents_seen -> id, seq, state, fence, priority, place, root, depth
-- the same, not held: in a transaction of the user's, which may stay open
SELECT c.id, c.seq, c.state, c.fence, c.priority, c.place, c.root, -c.level AS depth
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id

-- name: add_children -> i, id, seq, state, asked
-- rows: i, parent's seq, child_key; held: a cancellation that is under way is seen
SELECT k.i, c.id, c.seq, c.state, c.cancel_asked IS NOT NULL AS asked
FROM (SELECT b.i, c.seq
      FROM JSON_TABLE(:rows, '$[*]' COLUMNS (i BIGINT PATH '$[0]', parent BIGINT PATH '$[1]',
                                             child_key LONGTEXT PATH '$[2]')) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_parent)
          ON c.parent = b.parent AND c.child_key = b.child_key
      ORDER BY c.seq LIMIT 18446744073709551615) AS k
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = k.seq
ORDER BY c.seq FOR UPDATE

-- name: add_reattach
-- rows: seq, the parent's fence, the parent's seq; only its own children
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', fence BIGINT PATH '$[1]',
                                         parent BIGINT PATH '$[2]')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq AND c.parent = b.parent
SET c.asked = b.fence

-- name: key_lock -> i
-- rows: i, app, fn, key; until the commit, nobody else judges these keys. Answers with those that a transaction
-- judges which is still open: it may be a user's, and stay so for a minute. Keys are held by their hash.
-- Also with those that this transaction cannot judge: a user's may be REPEATABLE READ, as MySQL's are by default,
-- and sees no call that was committed since it first read something. What is locked is read as it stands.
SELECT b.i
FROM (SELECT i, CRC32(CONCAT_WS(CHAR(0), app, fn, `key`)) & 65535 AS bucket
      FROM JSON_TABLE(:rows, '$[*]' COLUMNS (i BIGINT PATH '$[0]', app LONGTEXT PATH '$[1]',
                                             fn LONGTEXT PATH '$[2]', `key` LONGTEXT PATH '$[3]')) AS b) AS b
LEFT JOIN (SELECT k.bucket, k.version
           FROM (SELECT DISTINCT CRC32(CONCAT_WS(CHAR(0), app, fn, `key`)) & 65535 AS bucket
                 FROM JSON_TABLE(:rows, '$[*]' COLUMNS (app LONGTEXT PATH '$[1]', fn LONGTEXT PATH '$[2]',
                                                        `key` LONGTEXT PATH '$[3]')) AS b
                 ORDER BY bucket LIMIT 18446744073709551615) AS b
           STRAIGHT_JOIN ever_key_locks AS k FORCE INDEX (PRIMARY) ON k.bucket = b.bucket
           LIMIT 18446744073709551615 FOR UPDATE SKIP LOCKED) AS held ON held.bucket = b.bucket
LEFT JOIN ever_key_locks AS seen FORCE INDEX (PRIMARY) ON seen.bucket = b.bucket
WHERE held.bucket IS NULL OR held.version <> seen.version

-- name: add_keyed -> i, id, seq, state
-- rows: i, app, fn, key
SELECT b.i, c.id, c.seq, c.state
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (i BIGINT PATH '$[0]', app LONGTEXT PATH '$[1]', fn LONGTEXT PATH '$[2]',
                                       `key` LONGTEXT PATH '$[3]')) AS b
STRAIGHT_JOIN ever_keys AS k FORCE INDEX (PRIMARY) ON k.app = b.app AND k.fn = b.fn AND k.`key` = b.`key`
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = k.seq
ORDER BY c.seq

-- name: watch
-- rows: seq, bits
UPDATE (SELECT seq, BIT_OR(bits) AS bits
        FROM JSON_TABLE(:rows, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', bits BIGINT PATH '$[1]')) AS b
        GROUP BY seq ORDER BY seq LIMIT 18446744073709551615) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
SET c.watched = c.watched | b.bits

-- name: watch_ended -> seq
-- those that had ended before they were watched: a look before that locks nothing, and may have been too early
SELECT c.seq FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
WHERE c.state IN ('succeeded', 'failed', 'cancelled', 'expired')

-- Settling ----------------------------------------------------------------------------------------

-- name: settle_match -> i, seq, fence, attempt, crashes, due, waiter, watched, cancel_asked, session, crash_limit
-- rows: i, id, fence
SELECT {row: k.i, c.seq, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, JSON_QUOTE(c.cancel_asked),
        c.session, c.crash_limit}
{one :i, :id, :fence in :rows:
FROM (SELECT :i AS i, :fence AS fence) AS k
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id)
    ON c.id = :id AND c.fence = k.fence AND c.state = 'leased'}
{several :rows:
FROM (SELECT b.i, b.fence, c.seq
      FROM JSON_TABLE(:rows, '$[*]' COLUMNS (i BIGINT PATH '$[0]', id LONGTEXT PATH '$[1]',
                                             fence BIGINT PATH '$[2]')) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id
      ORDER BY c.seq LIMIT 18446744073709551615) AS k
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = k.seq AND c.fence = k.fence AND c.state = 'leased'}
FOR UPDATE SKIP LOCKED

-- name: settle_held -> i
-- rows: i, id, fence; those that are held by a transaction which is still open
SELECT b.i
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (i BIGINT PATH '$[0]', id LONGTEXT PATH '$[1]',
                                       fence BIGINT PATH '$[2]')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id AND c.fence = b.fence AND c.state = 'leased'

-- name: succeed
UPDATE ever_calls FORCE INDEX (PRIMARY) SET state = 'succeeded', attempt = attempt + 1, session = 0
WHERE {seq among :seqs}

-- name: succeed_values
-- values: pairs of seq and value
INSERT INTO ever_outcomes (seq, ended, session, value)
{one :seq, :value in :values: VALUES (:seq, :now, :session, :value)}
{several :values:
SELECT b.seq, :now, :session, b.value
FROM JSON_TABLE(:values, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', value LONGTEXT PATH '$[1]')) AS b}

-- name: settle_alone
-- the end of a first run that was leased alone (see lease_alone), where nothing hangs on it and nobody holds it;
-- those that follow see by the variable whether it is so
SET @ever_ended = (SELECT seq FROM ever_calls FORCE INDEX (PRIMARY)
                   WHERE seq = :seq AND fence = 1 AND state = 'leased' AND session = :session AND watched = 0
                     AND waiter <=> :waiter FOR UPDATE SKIP LOCKED);
UPDATE ever_calls FORCE INDEX (PRIMARY) SET state = 'succeeded', attempt = attempt + 1, session = 0
WHERE seq = @ever_ended;
INSERT INTO ever_outcomes (seq, ended, session, value)
SELECT @ever_ended, :now, :session, :value FROM DUAL WHERE @ever_ended IS NOT NULL

-- name: tell_alone
INSERT INTO ever_inbox (session, seq, kind)
SELECT s.session, @ever_ended, 'ended' FROM ever_sessions AS s FORCE INDEX (PRIMARY)
WHERE s.session = :waiter AND @ever_ended IS NOT NULL
ON DUPLICATE KEY UPDATE seq = ever_inbox.seq

-- name: settle_few
-- the same for several: the ends of all, or of none; seqs in their order, values: pairs of seq and value
SET @ever_ended = (SELECT CASE WHEN COUNT(*) = :n THEN 1 END FROM (
    SELECT 1 FROM ever_calls FORCE INDEX (PRIMARY)
    WHERE {seq among :seqs} AND fence = 1 AND state = 'leased' AND session = :session AND watched = 0
      AND waiter <=> :waiter FOR UPDATE SKIP LOCKED) AS c);
UPDATE ever_calls FORCE INDEX (PRIMARY) SET state = 'succeeded', attempt = attempt + 1, session = 0
WHERE {seq among :seqs} AND @ever_ended IS NOT NULL;
INSERT INTO ever_outcomes (seq, ended, session, value)
SELECT b.seq, :now, :session, b.value
FROM JSON_TABLE(:values, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', value LONGTEXT PATH '$[1]')) AS b
WHERE @ever_ended IS NOT NULL

-- name: tell_few
INSERT INTO ever_inbox (session, seq, kind)
SELECT s.session, c.seq, 'ended'
FROM ever_sessions AS s FORCE INDEX (PRIMARY) STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY)
WHERE s.session = :waiter AND {c.seq among :seqs} AND @ever_ended IS NOT NULL
ON DUPLICATE KEY UPDATE seq = ever_inbox.seq

-- name: settled_alone -> seq
SELECT @ever_ended AS seq

-- name: move
-- rows: seq, state, due, attempt, crashes, growth of the fence
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    seq BIGINT PATH '$[0]', state LONGTEXT PATH '$[1]', due BIGINT PATH '$[2]', attempt BIGINT PATH '$[3]',
    crashes BIGINT PATH '$[4]', growth BIGINT PATH '$[5]')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
SET c.state = b.state, c.due = b.due, c.attempt = b.attempt, c.crashes = b.crashes,
    c.fence = c.fence + b.growth, c.session = 0

-- name: run_put
-- rows: seq, slot, fence, number, kind, session, error
INSERT INTO ever_runs (seq, slot, fence, number, kind, session, started, ended, error)
SELECT c.seq, b.slot, b.fence, b.number, b.kind, b.session, NULLIF(c.started, 0), :now, b.error
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    seq BIGINT PATH '$[0]', slot BIGINT PATH '$[1]', fence BIGINT PATH '$[2]', number BIGINT PATH '$[3]',
    kind LONGTEXT PATH '$[4]', session BIGINT PATH '$[5]', error LONGTEXT PATH '$[6]')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
ON DUPLICATE KEY UPDATE fence = b.fence, number = b.number, kind = b.kind, session = b.session,
    started = NULLIF(c.started, 0), ended = :now, error = b.error

-- name: end_outcomes
-- rows: seq, session, value, error
INSERT INTO ever_outcomes (seq, ended, session, value, error)
SELECT b.seq, :now, b.session, b.value, b.error
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (seq BIGINT PATH '$[0]', session BIGINT PATH '$[1]',
                                       value LONGTEXT PATH '$[2]', error LONGTEXT PATH '$[3]')) AS b

-- name: end_tell
-- only a session that is still there
INSERT INTO ever_inbox (session, seq, kind)
SELECT s.session, b.seq, 'ended'
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b JOIN ever_sessions AS s
WHERE s.session = :session
ORDER BY 2
ON DUPLICATE KEY UPDATE seq = ever_inbox.seq

-- name: end_waits -> session
SELECT DISTINCT w.session FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_waits AS w FORCE INDEX (PRIMARY) ON w.seq = b.seq

-- name: end_tell_waits
INSERT INTO ever_inbox (session, seq, kind)
SELECT w.session, w.seq, 'ended'
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_waits AS w FORCE INDEX (PRIMARY) ON w.seq = b.seq
STRAIGHT_JOIN ever_sessions AS s FORCE INDEX (PRIMARY) ON s.session = w.session
ORDER BY 1, 2
ON DUPLICATE KEY UPDATE seq = ever_inbox.seq

-- name: end_drop_waits
DELETE w FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_waits AS w FORCE INDEX (PRIMARY) ON w.seq = b.seq

-- name: end_wake
UPDATE JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS e FORCE INDEX (PRIMARY) ON e.seq = b.seq
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_after) ON c.after = e.id AND c.state = 'waiting'
SET c.state = CASE WHEN c.due <= :now THEN 'ready' ELSE 'scheduled' END

-- name: end_children -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
-- rows: the parent's seq, fence below which a child was not asked for
SELECT c.seq, c.id, c.state, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, c.cancel_asked,
       NULLIF(c.session, 0) AS session
FROM (SELECT c.seq, b.fence
      FROM JSON_TABLE(:rows, '$[*]' COLUMNS (parent BIGINT PATH '$[0]', fence BIGINT PATH '$[1]')) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_parent) ON c.parent = b.parent
      WHERE c.owned = 1 AND c.state IN ('waiting', 'scheduled', 'ready', 'leased')
      ORDER BY c.seq LIMIT 18446744073709551615) AS k
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = k.seq
WHERE c.asked < k.fence AND c.state IN ('waiting', 'scheduled', 'ready', 'leased')
ORDER BY c.seq FOR UPDATE

-- name: progress_put
-- rows: id, fence, done, total, note
INSERT INTO ever_progress (seq, done, total, note)
SELECT c.seq, b.done, b.total, b.note
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id LONGTEXT PATH '$[0]', fence BIGINT PATH '$[1]', done DOUBLE PATH '$[2]', total DOUBLE PATH '$[3]',
    note LONGTEXT PATH '$[4]')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id AND c.fence = b.fence AND c.state = 'leased'
ORDER BY c.seq
ON DUPLICATE KEY UPDATE done = b.done, total = b.total, note = b.note

-- Cancelling --------------------------------------------------------------------------------------

-- name: cancel_match -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
SELECT c.seq, c.id, c.state, c.fence, c.attempt, c.crashes, c.due, c.waiter, c.watched, c.cancel_asked,
       NULLIF(c.session, 0) AS session
FROM (SELECT DISTINCT c.seq FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id
      ORDER BY c.seq LIMIT 18446744073709551615) AS k
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = k.seq FOR UPDATE

-- name: cancel_parents -> id, fence
-- the parents that cancel; read and not held: the transaction of a body may hold its own call, and wait for the end
-- of what is cancelled here
SELECT c.id, c.fence
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id

-- name: cancel_ask
UPDATE JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
SET c.cancel_asked = :message

-- name: cancel_tell
INSERT INTO ever_inbox (session, seq, kind)
SELECT c.session, c.seq, 'cancel'
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
WHERE c.session <> 0
ORDER BY 1, 2
ON DUPLICATE KEY UPDATE seq = ever_inbox.seq

-- Leasing -----------------------------------------------------------------------------------------

-- name: look -> alive, due, expired, suspects, told, ready
-- what a turn has to do beside what it was asked: all of it cheap to see, and rarely there. The session is
-- held, so that nobody reaps it while it takes leases. A minimum alone, behind a bound at most, is looked up in
-- its index; beside anything else, MySQL might read all of it. Suspects are not looked for by the smallest line:
-- that would pass over all that has gone from the others, where their own ends at once.
SELECT (SELECT 1 FROM ever_sessions WHERE session = :session LOCK IN SHARE MODE) AS alive,
       (SELECT MIN(due_at) FROM ever_calls WHERE due_at > :due_from) AS due,
       (SELECT MIN(expires_at) FROM ever_calls WHERE expires_at > :expires_from) <= :now AS expired,
       (SELECT 1 FROM ever_calls FORCE INDEX (ever_calls_ready) WHERE line = 0 LIMIT 1) AS suspects,
       (SELECT 1 FROM ever_inbox WHERE session = :session LIMIT 1) AS told,
       (SELECT 1 FROM ever_calls FORCE INDEX (ever_calls_ready)
        WHERE line IN (-1{for :lane in :lanes, joined by  :, :lane}) LIMIT 1) AS ready

-- name: due_next -> due
SELECT MIN(due_at) AS due FROM ever_calls WHERE due_at > :due_from

-- name: due_ready
UPDATE (SELECT seq FROM ever_calls FORCE INDEX (ever_calls_due) WHERE due_at > :due_from AND due_at <= :now
        ORDER BY due_at LIMIT 5000 FOR UPDATE SKIP LOCKED) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
SET c.state = 'ready'

-- name: expire_match -> seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
SELECT seq, id, state, fence, attempt, crashes, due, waiter, watched, cancel_asked, NULLIF(session, 0) AS session
FROM ever_calls FORCE INDEX (ever_calls_expires) WHERE expires_at <= :now
ORDER BY expires_at LIMIT 5000 FOR UPDATE SKIP LOCKED

-- name: lease_pick -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
-- the head of each lane's line, and of these the first ones, in whatever order; of one lane, without a list
-- between, though it locks the payloads, too
SELECT {row: c.seq, c.place, c.root, JSON_QUOTE(CONVERT(c.id USING utf8mb4)), c.fence + 1, c.lane,
        JSON_QUOTE(p.args), JSON_QUOTE(p.policy), c.attempt, c.crashes, -c.level, -c.priority,
        JSON_QUOTE(CONVERT(c.after USING utf8mb4)), c.due, p.created}
{one :lane in :lanes:
FROM ever_calls AS c FORCE INDEX (ever_calls_ready)
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq
WHERE c.line = :lane
ORDER BY c.priority, c.place, c.root, c.level, c.seq LIMIT :room FOR UPDATE SKIP LOCKED}
{several :lanes:
FROM (SELECT * FROM (}{for several :lane in :lanes, joined by UNION ALL:
          (SELECT seq, place, root, id, fence, lane, attempt, crashes, level, priority, after, due
           FROM ever_calls FORCE INDEX (ever_calls_ready) WHERE line = :lane
           ORDER BY priority, place, root, level, seq LIMIT :room FOR UPDATE SKIP LOCKED)}
{several :lanes:
                    ) AS heads
      ORDER BY priority, place, root, level, seq LIMIT :room) AS c
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq}

-- name: lease_pick_children -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
SELECT {row: c.seq, c.place, c.root, JSON_QUOTE(CONVERT(c.id USING utf8mb4)), c.fence + 1, c.lane,
        JSON_QUOTE(p.args), JSON_QUOTE(p.policy), c.attempt, c.crashes, -c.level, -c.priority,
        JSON_QUOTE(CONVERT(c.after USING utf8mb4)), c.due, p.created}
{one :lane in :lanes:
FROM ever_calls AS c FORCE INDEX (ever_calls_ready_child)
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq
WHERE c.child_line = :lane
ORDER BY c.priority, c.place, c.root, c.level, c.seq LIMIT :room FOR UPDATE SKIP LOCKED}
{several :lanes:
FROM (SELECT * FROM (}{for several :lane in :lanes, joined by UNION ALL:
          (SELECT seq, place, root, id, fence, lane, attempt, crashes, level, priority, after, due
           FROM ever_calls FORCE INDEX (ever_calls_ready_child) WHERE child_line = :lane
           ORDER BY priority, place, root, level, seq LIMIT :room FOR UPDATE SKIP LOCKED)}
{several :lanes:
                    ) AS heads
      ORDER BY priority, place, root, level, seq LIMIT :room) AS c
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq}

-- name: lease_lately -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
-- Those that were submitted after another, by the rows themselves, where the index is full of what has gone from it.
-- What is read beside it is not locked.
SELECT {row: c.seq, c.place, c.root, JSON_QUOTE(CONVERT(c.id USING utf8mb4)), c.fence + 1, c.lane,
        JSON_QUOTE(p.args), JSON_QUOTE(p.policy), c.attempt, c.crashes, -c.level, -c.priority,
        JSON_QUOTE(CONVERT(c.after USING utf8mb4)), c.due, p.created}
FROM (SELECT c.* FROM (
          SELECT seq FROM ever_calls FORCE INDEX (PRIMARY)
          WHERE seq > :since AND line IN ({for :lane in :lanes, joined by ,: :lane}) AND level <= -:depth
            AND (expires IS NULL OR expires > :now)
          ORDER BY seq LIMIT :most) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
      WHERE c.line IN ({for :lane in :lanes, joined by ,: :lane}) LIMIT :room FOR UPDATE SKIP LOCKED) AS c
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq

-- name: lease_pick_suspect -> seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
SELECT {row: c.seq, c.place, c.root, JSON_QUOTE(CONVERT(c.id USING utf8mb4)), c.fence + 1, c.lane,
        JSON_QUOTE(p.args), JSON_QUOTE(p.policy), c.attempt, c.crashes, -c.level, -c.priority,
        JSON_QUOTE(CONVERT(c.after USING utf8mb4)), c.due, p.created}
FROM (SELECT seq, place, root, id, fence, lane, attempt, crashes, level, priority, after, due
      FROM ever_calls FORCE INDEX (ever_calls_ready)
      WHERE line = 0 AND level <= -:depth AND lane IN ({for :lane in :lanes, joined by ,: :lane})
      ORDER BY priority, place, root, level, seq LIMIT 1 FOR UPDATE SKIP LOCKED) AS c
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq

-- name: lease_take
UPDATE ever_calls FORCE INDEX (PRIMARY)
SET state = 'leased', session = :session, fence = fence + 1, started = :now
WHERE {seq among :seqs}

-- name: lease_alone -> waiter, watched, seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
-- picks and takes the first call of the only lane that has one, unless it has expired, which then ends it; where
-- several lanes have one, they have to be compared. The session is held as by `look`. In a SET every read is one
-- that locks: what others hold is passed over in each of them.
SET @ever_alive = (SELECT 1 FROM ever_sessions WHERE session = :session LOCK IN SHARE MODE),
{several :lanes:
    @ever_last = (SELECT line FROM ever_calls FORCE INDEX (ever_calls_ready)
                  WHERE line IN (}{for several :lane in :lanes, joined by ,: :lane}{several :lanes:)
                  ORDER BY line DESC LIMIT 1 FOR UPDATE SKIP LOCKED),}
    @ever_first = (SELECT seq FROM ever_calls FORCE INDEX (ever_calls_ready)
                   WHERE line IN ({for :lane in :lanes, joined by ,: :lane})
                   ORDER BY line, priority, place, root, level, seq LIMIT 1 FOR UPDATE SKIP LOCKED);
UPDATE ever_calls FORCE INDEX (PRIMARY)
SET state = 'leased', session = :session, fence = fence + 1, started = :now
WHERE seq = @ever_first AND state = 'ready' AND @ever_alive = 1 AND (expires IS NULL OR expires > :now)
{several :lanes: AND line = @ever_last};
SELECT c.waiter, c.watched, c.seq, c.place, c.root, c.id, c.fence, c.lane, p.args, p.policy, c.attempt, c.crashes,
       -c.level AS depth, -c.priority AS priority, c.after, c.due, p.created
FROM ever_calls AS c FORCE INDEX (PRIMARY) STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq
WHERE c.seq = @ever_first AND c.session = :session

-- name: lease_few
-- the same for several, picked as by `lease_pick`, of whichever lanes; `lease_few_take` takes them
SET @ever_alive = (SELECT 1 FROM ever_sessions WHERE session = :session LOCK IN SHARE MODE),
    @ever_few = (SELECT CONCAT('[', GROUP_CONCAT(seq), ']') FROM (
{one :lane in :lanes:
        SELECT seq FROM ever_calls FORCE INDEX (ever_calls_ready) WHERE line = :lane
        ORDER BY priority, place, root, level, seq LIMIT :room FOR UPDATE SKIP LOCKED}
{several :lanes:
        SELECT seq FROM (}{for several :lane in :lanes, joined by UNION ALL:
            (SELECT seq, priority, place, root, level FROM ever_calls FORCE INDEX (ever_calls_ready)
             WHERE line = :lane ORDER BY priority, place, root, level, seq LIMIT :room FOR UPDATE SKIP LOCKED)}
{several :lanes:
        ) AS heads
        ORDER BY priority, place, root, level, seq LIMIT :room}
    ) AS c)

-- name: lease_few_lately
-- the same for those that were submitted after another, as by `lease_lately`; none where there are more
SET @ever_alive = (SELECT 1 FROM ever_sessions WHERE session = :session LOCK IN SHARE MODE);
SELECT CASE WHEN COUNT(*) <= :room THEN CONCAT('[', GROUP_CONCAT(seq), ']') END INTO @ever_few FROM (
    SELECT c.seq FROM (
        SELECT seq FROM ever_calls FORCE INDEX (PRIMARY)
        WHERE seq > :since AND line IN ({for :lane in :lanes, joined by ,: :lane}) AND (expires IS NULL OR expires > :now)
        ORDER BY seq LIMIT :most) AS b
    STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
    WHERE c.line IN ({for :lane in :lanes, joined by ,: :lane}) LIMIT :most FOR UPDATE SKIP LOCKED) AS c

-- name: lease_few_take -> waiter, watched, seq, place, root, id, fence, lane, args, policy, attempt, crashes, depth, priority, after, due, created
-- what one of the two before it has picked, unless it has expired, or the session was reaped
UPDATE JSON_TABLE(@ever_few, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
SET c.state = 'leased', c.session = :session, c.fence = c.fence + 1, c.started = :now
WHERE @ever_alive = 1 AND (c.expires IS NULL OR c.expires > :now);
SELECT {row: c.waiter, c.watched, c.seq, c.place, c.root, JSON_QUOTE(CONVERT(c.id USING utf8mb4)), c.fence, c.lane,
        JSON_QUOTE(p.args), JSON_QUOTE(p.policy), c.attempt, c.crashes, -c.level, -c.priority,
        JSON_QUOTE(CONVERT(c.after USING utf8mb4)), c.due, p.created}
FROM JSON_TABLE(@ever_few, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq AND c.session = :session
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq

-- Inbox -------------------------------------------------------------------------------------------

-- name: inbox_read -> seq, kind, id, state, value, error, attempt, fence, cancel_asked
-- The calls are read as they stood when the statement began, the inbox as it stands: an end that came between
-- is left for the next time.
SELECT {row: i.seq, CONCAT('"', i.kind, '"'), JSON_QUOTE(CONVERT(c.id USING utf8mb4)), CONCAT('"', c.state, '"'),
        JSON_QUOTE(o.value), JSON_QUOTE(o.error), c.attempt, c.fence, JSON_QUOTE(c.cancel_asked)}
FROM (SELECT seq, kind FROM ever_inbox WHERE session = :session
      ORDER BY seq, kind LIMIT :most FOR UPDATE SKIP LOCKED) AS i
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = i.seq
LEFT JOIN ever_outcomes AS o ON o.seq = i.seq
WHERE i.kind = 'cancel' OR c.state IN ('succeeded', 'failed', 'cancelled', 'expired')

-- name: inbox_look -> kind, id, state, value, error, attempt
-- the same, to be told before a turn takes it: nothing is held
SELECT i.kind, c.id, c.state, o.value, o.error, c.attempt
FROM ever_inbox AS i FORCE INDEX (PRIMARY)
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = i.seq
LEFT JOIN ever_outcomes AS o ON o.seq = i.seq
WHERE i.session = :session ORDER BY i.seq, i.kind LIMIT :most

-- name: inbox_take
-- rows: seq, kind; only what was read: others may have written since
DELETE i FROM ever_inbox AS i FORCE INDEX (PRIMARY)
WHERE i.session = :session AND i.kind = 'ended' AND {i.seq among :rows of 'ended'};
DELETE i FROM ever_inbox AS i FORCE INDEX (PRIMARY)
WHERE i.session = :session AND i.kind = 'cancel' AND {i.seq among :rows of 'cancel'}

-- name: inbox_told -> told
SELECT EXISTS (SELECT 1 FROM ever_inbox WHERE session = :session) AS told

-- name: wait_match -> id, seq, state
SELECT c.id, c.seq, c.state FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id

-- name: wait_add
INSERT INTO ever_waits (seq, session)
SELECT b.seq, s.session
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b JOIN ever_sessions AS s
WHERE s.session = :session
ORDER BY 1
ON DUPLICATE KEY UPDATE seq = ever_waits.seq

-- Sessions ----------------------------------------------------------------------------------------

-- name: session_open -> session
INSERT INTO ever_sessions (app, kind, host, pid, opened, until)
VALUES (:app, :kind, :host, :pid, :now, :until);
SELECT LAST_INSERT_ID() AS session

-- name: session_kind
UPDATE ever_sessions SET kind = :kind WHERE session = :session

-- name: session_find -> session
SELECT session FROM ever_sessions WHERE session = :session FOR UPDATE

-- name: session_renew
UPDATE ever_sessions SET until = :until, gauges = :gauges WHERE session = :session

-- name: session_unserve
DELETE FROM ever_serves WHERE session = :session

-- name: session_serve
INSERT INTO ever_serves (session, lane)
SELECT :session, b.lane FROM JSON_TABLE(:lanes, '$[*]' COLUMNS (lane BIGINT PATH '$')) AS b
ON DUPLICATE KEY UPDATE lane = ever_serves.lane

-- name: session_leases -> seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
SELECT seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
FROM (SELECT seq AS number FROM ever_calls FORCE INDEX (ever_calls_ready)
      WHERE line = 4611686018427387904 + :session ORDER BY seq LIMIT 18446744073709551615) AS k
STRAIGHT_JOIN ever_calls FORCE INDEX (PRIMARY) ON seq = k.number AND session = :session
ORDER BY seq FOR UPDATE

-- name: session_free_leases -> seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
SELECT seq, id, fence, attempt, crashes, crash_limit, due, waiter, watched, cancel_asked, session
FROM (SELECT seq AS number FROM ever_calls FORCE INDEX (ever_calls_ready)
      WHERE line = 4611686018427387904 + :session ORDER BY seq LIMIT 18446744073709551615) AS k
STRAIGHT_JOIN ever_calls FORCE INDEX (PRIMARY) ON seq = k.number AND session = :session
ORDER BY seq FOR UPDATE SKIP LOCKED

-- name: session_held -> session
-- a lease of it that was held by another transaction
SELECT session FROM ever_calls FORCE INDEX (ever_calls_ready) WHERE line = 4611686018427387904 + :session LIMIT 1

-- name: session_past
INSERT INTO ever_past_sessions (session, host, pid, closed)
SELECT session, host, pid, :now FROM ever_sessions WHERE session = :session
ON DUPLICATE KEY UPDATE closed = ever_past_sessions.closed

-- name: session_drop
DELETE FROM ever_sessions WHERE session = :session

-- name: session_drop_inbox
DELETE FROM ever_inbox WHERE session = :session

-- name: session_drop_waits
DELETE FROM ever_waits WHERE session = :session

-- name: session_dead -> session, host, pid
-- FOR UPDATE: not while its turn is under way, and nobody else reaps the same
SELECT session, host, pid FROM ever_sessions
WHERE until <= :now OR JSON_CONTAINS(:gone, CAST(session AS CHAR))
ORDER BY session FOR UPDATE SKIP LOCKED

-- Keeping -----------------------------------------------------------------------------------------

-- name: keep_hold -> seq
-- finished calls that something is about to hang on: nobody prunes them meanwhile
SELECT c.seq
FROM (SELECT DISTINCT seq FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
      ORDER BY seq LIMIT 18446744073709551615) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq LOCK IN SHARE MODE

-- name: log_put
-- rows: id, fence, n, attempt, at, lines
INSERT INTO ever_logs (seq, fence, n, attempt, at, `lines`)
SELECT c.seq, b.fence, b.n, b.attempt, b.at, b.`lines`
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id LONGTEXT PATH '$[0]', fence BIGINT PATH '$[1]', n BIGINT PATH '$[2]', attempt BIGINT PATH '$[3]',
    at BIGINT PATH '$[4]', `lines` LONGTEXT PATH '$[5]')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id AND c.fence >= b.fence
ORDER BY 1, 2, 3
ON DUPLICATE KEY UPDATE n = ever_logs.n

-- name: log_read -> fence, n, attempt, lines
SELECT g.fence, g.n, g.attempt, g.`lines`
FROM ever_calls AS c FORCE INDEX (ever_calls_id)
STRAIGHT_JOIN ever_logs AS g FORCE INDEX (PRIMARY) ON g.seq = c.seq
WHERE c.id = :id AND (g.fence > :fence OR (g.fence = :fence AND g.n > :n))
ORDER BY g.fence, g.n LIMIT :most

-- name: sweep_find -> began
SELECT began FROM ever_sweeps WHERE app = :app FOR UPDATE

-- name: sweep_put
INSERT INTO ever_sweeps (app, began) VALUES (:app, :now) ON DUPLICATE KEY UPDATE began = :now

-- name: sweep_lost -> session
-- those that something was told while they ended, or that asked for it then
SELECT session FROM ever_inbox AS i
WHERE NOT EXISTS (SELECT 1 FROM ever_sessions AS s WHERE s.session = i.session)
UNION
SELECT session FROM ever_waits AS w
WHERE NOT EXISTS (SELECT 1 FROM ever_sessions AS s WHERE s.session = w.session)

-- name: prune_sessions
DELETE FROM ever_past_sessions WHERE closed < :before ORDER BY closed LIMIT 5000

-- name: prune_bound -> seq
-- the newest finished call that is one too many
SELECT seq FROM ever_calls FORCE INDEX (PRIMARY)
WHERE lane IN (SELECT lane FROM ever_lanes WHERE app = :app) AND state IN ('succeeded', 'failed', 'cancelled', 'expired')
ORDER BY seq DESC LIMIT 1 OFFSET :count

-- name: prune_page -> seq, mine, state, created, ended, valued, logged
SELECT c.seq, l.app = :app AS mine, c.state, p.created, o.ended, o.value IS NOT NULL AS valued,
       EXISTS (SELECT 1 FROM ever_logs AS g WHERE g.seq = c.seq) AS logged
FROM (SELECT seq, lane, state FROM ever_calls FORCE INDEX (PRIMARY)
      WHERE seq > :after ORDER BY seq LIMIT :most) AS c
STRAIGHT_JOIN ever_lanes AS l ON l.lane = c.lane
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq
LEFT JOIN ever_outcomes AS o ON o.seq = c.seq
ORDER BY c.seq

-- name: prune_lock -> seq
SELECT c.seq
FROM (SELECT DISTINCT seq FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
      ORDER BY seq LIMIT 18446744073709551615) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq AND c.state IN ('succeeded', 'failed', 'cancelled', 'expired')
FOR UPDATE SKIP LOCKED

-- name: prune_ties -> seq, root, rooted, alive, held
-- whether its root is there, and lives; whether a call lives whose body may ask for it again, or that follows it
SELECT c.seq, c.root,
       EXISTS (SELECT 1 FROM ever_calls AS r WHERE r.seq = c.root AND r.seq <> c.seq) AS rooted,
       EXISTS (SELECT 1 FROM ever_calls AS r WHERE r.seq = c.root AND r.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')) AS alive,
       (EXISTS (SELECT 1 FROM ever_calls AS f WHERE f.seq = c.parent AND f.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
        OR EXISTS (SELECT 1 FROM ever_calls AS f WHERE f.after = c.id AND f.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))) AS held
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq

-- name: prune_told -> seq
-- those of whose end a session is yet to be told
SELECT DISTINCT seq FROM ever_inbox WHERE seq BETWEEN :first AND :last

-- name: prune_keys
DELETE k
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (PRIMARY) ON c.seq = b.seq
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq
STRAIGHT_JOIN ever_lanes AS l ON l.lane = c.lane
STRAIGHT_JOIN ever_keys AS k FORCE INDEX (PRIMARY)
    ON k.app = l.app AND k.fn = l.fn AND k.`key` = p.`key` AND k.seq = c.seq

-- name: prune_payloads
DELETE t
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_payloads AS t FORCE INDEX (PRIMARY) ON t.seq = b.seq

-- name: prune_outcomes
DELETE t
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_outcomes AS t FORCE INDEX (PRIMARY) ON t.seq = b.seq

-- name: prune_progress
DELETE t
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_progress AS t FORCE INDEX (PRIMARY) ON t.seq = b.seq

-- name: prune_runs
DELETE t
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_runs AS t FORCE INDEX (PRIMARY) ON t.seq = b.seq

-- name: prune_logs
DELETE t
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_logs AS t FORCE INDEX (PRIMARY) ON t.seq = b.seq

-- name: prune_calls
DELETE t
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS t FORCE INDEX (PRIMARY) ON t.seq = b.seq

-- name: prune_values
UPDATE JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_outcomes AS o FORCE INDEX (PRIMARY) ON o.seq = b.seq
SET o.value = NULL

-- name: prune_lines
DELETE t
FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS b
STRAIGHT_JOIN ever_logs AS t FORCE INDEX (PRIMARY) ON t.seq = b.seq
WHERE t.at < :before

-- Reading -----------------------------------------------------------------------------------------

-- name: read_calls -> id, app, queue, fn, state, args, policy, priority, due, created, started, ended, expires, fence, attempt, crashes, crash_limit, depth, session, parent, owned, after, key, tags, retry_of, cancel_asked, value, error, done, total, note
SELECT c.id, l.app, l.queue, l.fn, c.state, p.args, p.policy, -c.priority AS priority, c.due, p.created,
       NULLIF(c.started, 0) AS started, o.ended, c.expires, c.fence, c.attempt, c.crashes, c.crash_limit, -c.level AS depth,
       COALESCE(NULLIF(c.session, 0), o.session) AS session,
       f.id AS parent, c.owned, c.after, p.`key`, p.tags, p.retry_of, c.cancel_asked, o.value, o.error, g.done,
       g.total, g.note
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id
STRAIGHT_JOIN ever_lanes AS l ON l.lane = c.lane
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq
LEFT JOIN ever_outcomes AS o ON o.seq = c.seq
LEFT JOIN ever_calls AS f ON f.seq = c.parent
LEFT JOIN ever_progress AS g ON g.seq = c.seq

-- name: read_runs -> id, fence, number, kind, session, started, ended, error, host, pid
-- those that were noted, and the last one where the outcome tells of it
SELECT r.id, r.fence, r.number, r.kind, r.session, r.started, r.ended, r.error,
       coalesce(s.host, p.host) AS host, coalesce(s.pid, p.pid) AS pid
FROM (SELECT c.id, r.fence, r.number, r.kind, r.session, r.started, r.ended, r.error
      FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id
      STRAIGHT_JOIN ever_runs AS r FORCE INDEX (PRIMARY) ON r.seq = c.seq
      UNION ALL
      SELECT c.id, c.fence, c.attempt AS number, c.state AS kind, o.session, c.started, o.ended, o.error
      FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id LONGTEXT PATH '$')) AS b
      STRAIGHT_JOIN ever_calls AS c FORCE INDEX (ever_calls_id) ON c.id = b.id
      STRAIGHT_JOIN ever_outcomes AS o FORCE INDEX (PRIMARY) ON o.seq = c.seq
      WHERE o.session IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM ever_runs AS r WHERE r.seq = c.seq AND r.fence >= c.fence - 1)) AS r
LEFT JOIN ever_sessions AS s ON s.session = r.session
LEFT JOIN ever_past_sessions AS p ON p.session = r.session
ORDER BY r.fence

-- name: read_find -> id
-- Empty lists and nulls leave a condition out.
SELECT c.id
FROM ever_calls AS c
STRAIGHT_JOIN ever_lanes AS l ON l.lane = c.lane
STRAIGHT_JOIN ever_payloads AS p FORCE INDEX (PRIMARY) ON p.seq = c.seq
WHERE (:before IS NULL OR c.seq < (SELECT seq FROM ever_calls WHERE id = :before))
  AND (:app IS NULL OR l.app = :app)
  AND (:queue IS NULL OR l.queue = :queue)
  AND (:fn IS NULL OR l.fn = :fn)
  AND (JSON_LENGTH(:states) = 0 OR JSON_CONTAINS(:states, JSON_QUOTE(c.state)))
  AND (:tag IS NULL OR EXISTS (
      SELECT 1 FROM JSON_TABLE(COALESCE(p.tags, '[]'), '$[*]' COLUMNS (tag LONGTEXT PATH '$')) AS t
      WHERE CAST(t.tag AS BINARY) = CAST(:tag AS BINARY)))
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
       (SELECT count(*) FROM ever_calls AS c WHERE c.line = 4611686018427387904 + s.session) AS leased, s.gauges
FROM ever_sessions AS s WHERE :app IS NULL OR s.app = :app
ORDER BY s.session

-- name: read_session_queues -> session, queue
SELECT DISTINCT v.session, l.queue
FROM ever_sessions AS s JOIN ever_serves AS v ON v.session = s.session JOIN ever_lanes AS l ON l.lane = v.lane
WHERE :app IS NULL OR s.app = :app

-- name: read_sweep -> began
SELECT began FROM ever_sweeps WHERE app = :app
