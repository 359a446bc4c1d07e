-- What workers tell of themselves: memory, lag and slots, with each renewal (JSON, `Gauges` in _core/looks.py).
-- oldest: 2

-- What is there already is left alone, so that this may be executed again: MySQL cannot say so in ALTER TABLE.
SET @ever_add = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = 'ever_sessions' AND column_name = 'gauges'),
    'DO 0',
    'ALTER TABLE ever_sessions ADD COLUMN gauges LONGTEXT'
);
PREPARE ever_add FROM @ever_add;
EXECUTE ever_add;
DEALLOCATE PREPARE ever_add;
