-- The registry is an index of the journals of runs: how far each has been read.
CREATE TABLE journals (
  run_id TEXT NOT NULL,
  file TEXT NOT NULL,
  mark TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  lines INTEGER NOT NULL,
  unread INTEGER NOT NULL,
  PRIMARY KEY (run_id, file)
) WITHOUT ROWID;
