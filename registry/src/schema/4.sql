-- Where on a cluster an execution is or was: its job, its node, its state in the queue.
ALTER TABLE executions ADD COLUMN place TEXT;
