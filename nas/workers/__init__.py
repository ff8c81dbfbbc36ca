"""Worker processes: how they are started, kept, given tasks, and what messages they exchange with the driver."""
