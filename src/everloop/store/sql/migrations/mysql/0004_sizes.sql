-- What nearly every call's transitions change keeps its size, so that a row is changed where it stands: an ENUM, and
-- a 0 or the largest number in place of NULL. The table is made anew, and written by nobody meanwhile: workers of the
-- release before cannot go on with it.

-- A process that is killed half-way leaves the old type of `state`: all of this is then done again.
SET @ever_old = EXISTS (SELECT 1 FROM information_schema.columns
                        WHERE table_schema = DATABASE() AND table_name = 'ever_calls' AND column_name = 'state'
                          AND data_type = 'varchar');
SET @ever_loose = IF(
    EXISTS (SELECT 1 FROM information_schema.table_constraints
            WHERE constraint_schema = DATABASE() AND table_name = 'ever_calls'
              AND constraint_name = 'ever_calls_lease') AND @ever_old,
    'ALTER TABLE ever_calls DROP CONSTRAINT ever_calls_lease',
    'DO 0'
);
PREPARE ever_loose FROM @ever_loose;
EXECUTE ever_loose;
DEALLOCATE PREPARE ever_loose;
UPDATE ever_calls SET session = COALESCE(session, 0), started = COALESCE(started, 0)
WHERE session IS NULL OR started IS NULL;

-- The line in which a call that is ready stands: its lane's, or 0, which is that of the suspects. Their workers died
-- with them twice; kept apart, many of them stand in nobody's way. Behind all lines, the calls of a session stand at
-- 2^62 + session, and all others at the end.
-- Invariant: `session` is not 0 exactly when leased; `started` is 0 until then.
SET @ever_sizes = IF(@ever_old,
    "ALTER TABLE ever_calls
        DROP KEY ever_calls_ready, DROP KEY ever_calls_ready_child, DROP KEY ever_calls_due,
        DROP KEY ever_calls_expires, DROP KEY ever_calls_session,
        DROP COLUMN line, DROP COLUMN child_line, DROP COLUMN due_at, DROP COLUMN expires_at,
        DROP CONSTRAINT ever_calls_states,
        MODIFY state ENUM('waiting', 'scheduled', 'ready', 'leased', 'succeeded', 'failed', 'cancelled', 'expired')
            CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        MODIFY session BIGINT NOT NULL DEFAULT 0,
        MODIFY started BIGINT NOT NULL DEFAULT 0,
        ADD COLUMN line BIGINT GENERATED ALWAYS AS (CASE WHEN state = 'ready' AND gate IS NULL
                                                    THEN CASE WHEN crashes < 2 THEN lane ELSE 0 END
                                                    WHEN session <> 0 THEN 4611686018427387904 + session
                                                    ELSE 9223372036854775807 END) STORED,
        ADD COLUMN child_line BIGINT GENERATED ALWAYS AS (CASE WHEN state = 'ready' AND gate IS NULL AND crashes < 2
                                                                    AND level < 0 THEN lane END) STORED,
        ADD COLUMN due_at BIGINT GENERATED ALWAYS AS (CASE WHEN state = 'scheduled' THEN due END) STORED,
        ADD COLUMN expires_at BIGINT GENERATED ALWAYS AS (CASE WHEN state IN ('waiting', 'scheduled', 'ready')
                                                          THEN expires END) STORED,
        ADD KEY ever_calls_ready (line, priority, place, root, level, seq),
        ADD KEY ever_calls_ready_child (child_line, priority, place, root, level, seq),
        ADD KEY ever_calls_due (due_at),
        ADD KEY ever_calls_expires (expires_at),
        ADD CONSTRAINT ever_calls_lease CHECK ((session <> 0) = (state = 'leased'))",
    'DO 0'
);
PREPARE ever_sizes FROM @ever_sizes;
EXECUTE ever_sizes;
DEALLOCATE PREPARE ever_sizes;
