"""Boards: leaderboards of records, with published numbers in separate tables."""
