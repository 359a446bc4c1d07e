"""What goes on behind a worker's turns: one loop per file."""
