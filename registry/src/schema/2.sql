-- A metric row carried its execution's uuid and its name twice, once in the table and once in the
-- index. Now a series has a number and its points lie together in order of their steps, which is
-- how they are read. `metrics` stays as a view, to read from and to insert into.
CREATE TABLE series (
  id INTEGER PRIMARY KEY,
  execution_id TEXT NOT NULL,
  name TEXT NOT NULL,
  UNIQUE (execution_id, name)
);

-- Step -1 is the final number.
CREATE TABLE points (
  series_id INTEGER NOT NULL,
  step INTEGER NOT NULL,
  value REAL,
  special TEXT,
  at INTEGER NOT NULL,
  PRIMARY KEY (series_id, step)
) WITHOUT ROWID;

INSERT INTO series (execution_id, name) SELECT DISTINCT execution_id, name FROM metrics;
-- In order of time, so that of two values for one step the later one stays.
INSERT OR REPLACE INTO points
  SELECT series.id, ifnull(step, -1), value, special, at
  FROM metrics JOIN series USING (execution_id, name) ORDER BY series.id, ifnull(step, -1), at;
DROP TABLE metrics;

CREATE VIEW metrics AS
  SELECT execution_id, name, nullif(step, -1) AS step, value, special, at
  FROM series JOIN points ON points.series_id = series.id;

CREATE TRIGGER metrics_insert INSTEAD OF INSERT ON metrics BEGIN
  INSERT OR IGNORE INTO series (execution_id, name) VALUES (new.execution_id, new.name);
  INSERT OR REPLACE INTO points
    SELECT id, ifnull(new.step, -1), new.value, new.special, new.at
    FROM series WHERE execution_id = new.execution_id AND name = new.name;
END;

CREATE INDEX stages_by_execution ON stages (execution_id);
