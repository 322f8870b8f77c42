"""Run folders: numbered, without a torn file ever, and found again."""
