-- How far an execution is and what it takes just now, rewritten in place while it goes on.
CREATE TABLE progress (
  execution_id TEXT PRIMARY KEY NOT NULL,
  done INTEGER NOT NULL,
  total INTEGER,
  unit TEXT NOT NULL,
  note TEXT,
  from_done INTEGER NOT NULL,
  from_at INTEGER NOT NULL,
  cpu_seconds REAL,
  memory_bytes INTEGER,
  at INTEGER NOT NULL
) WITHOUT ROWID;
