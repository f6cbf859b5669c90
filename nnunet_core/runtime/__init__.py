"""What everything stands on: atomic files, locks, processes, memory, reporting."""
