"""Devices, precision, several processes, compilation, memory: below every room that computes."""
