"""The leaderboard: its ranking and rows, and how they are explained."""
