"""Worker processes: how they are started, kept alive and given tasks, and their messages to and from the driver."""
