-- Times are milliseconds since the Unix epoch (UTC); digests and keys 64 hex digits; JSON is text.
CREATE TABLE runs (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT UNIQUE NOT NULL,
  experiment TEXT NOT NULL,
  file TEXT NOT NULL,
  text TEXT NOT NULL,
  resolved TEXT NOT NULL,
  seed INTEGER,
  status TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  host TEXT NOT NULL,
  device TEXT NOT NULL,
  git_commit TEXT,
  git_dirty INTEGER,
  version TEXT NOT NULL,
  command TEXT NOT NULL,
  sweep TEXT,
  removed_at INTEGER
);
CREATE INDEX runs_by_time ON runs (started_at);
CREATE INDEX runs_by_experiment ON runs (experiment, started_at);
CREATE INDEX runs_by_file ON runs (file, started_at);

CREATE TABLE executions (
  id TEXT PRIMARY KEY NOT NULL,
  run_id TEXT NOT NULL,
  stage TEXT NOT NULL,
  key TEXT NOT NULL,
  kind TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  status TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  cpu_seconds REAL,
  peak_memory_bytes INTEGER,
  artifact TEXT,
  device TEXT NOT NULL,
  threads INTEGER,
  origin TEXT,
  recipe TEXT NOT NULL,
  error TEXT
);
CREATE INDEX executions_by_run ON executions (run_id, started_at);
CREATE INDEX executions_by_key ON executions (key);

CREATE TABLE stages (
  run_id TEXT NOT NULL,
  name TEXT NOT NULL,
  position INTEGER NOT NULL,
  kind TEXT NOT NULL,
  outcome TEXT NOT NULL,
  key TEXT,
  execution_id TEXT,
  artifact TEXT,
  reason TEXT,
  inputs TEXT NOT NULL,
  settings TEXT NOT NULL,
  PRIMARY KEY (run_id, name)
) WITHOUT ROWID;

CREATE TABLE params (
  run_id TEXT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  is_default INTEGER NOT NULL,
  PRIMARY KEY (run_id, name)
) WITHOUT ROWID;

-- `step` is NULL for a final number; a value that is no number is NULL with its name in `special`.
CREATE TABLE metrics (
  execution_id TEXT NOT NULL,
  name TEXT NOT NULL,
  step INTEGER,
  value REAL,
  special TEXT,
  at INTEGER NOT NULL
);
CREATE INDEX metrics_by_step ON metrics (execution_id, name, step);

CREATE TABLE samples (
  execution_id TEXT NOT NULL,
  step INTEGER,
  prompt TEXT NOT NULL,
  text TEXT NOT NULL,
  at INTEGER NOT NULL
);
CREATE INDEX samples_by_execution ON samples (execution_id, step);

CREATE TABLE events (
  run_id TEXT NOT NULL,
  stage TEXT,
  at INTEGER NOT NULL,
  level TEXT NOT NULL,
  message TEXT NOT NULL
);
CREATE INDEX events_by_run ON events (run_id, at);

CREATE TABLE tags (run_id TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (run_id, tag)) WITHOUT ROWID;
CREATE TABLE notes (run_id TEXT NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL);
CREATE INDEX notes_by_run ON notes (run_id, at);
