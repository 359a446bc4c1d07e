-- What workers tell of themselves: memory, lag and slots, with each renewal (JSON, `Gauges` in _core/looks.py).
-- oldest: 2

ALTER TABLE ever_sessions ADD COLUMN gauges text;
