"""Packages of plugins: made from a template, and brought up to a newer one."""
