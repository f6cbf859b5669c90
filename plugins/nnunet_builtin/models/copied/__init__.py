"""The planner that takes the plans of another dataset, and what it reads them from."""
