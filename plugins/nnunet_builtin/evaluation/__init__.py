"""How good predicted label maps are: metrics, intervals, tables and pictures."""
