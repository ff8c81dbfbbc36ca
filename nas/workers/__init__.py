"""Worker processes: how they are started, kept, given work and heard."""
