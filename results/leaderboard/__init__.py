"""The leaderboard: ranking, rows, and how they are read aloud."""
